//! The faults of `make faults`.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    StoreRefuses,
    StoreCuts,
    StoreDelays,
    AnswersLost,
    StoreKilled,
    /// Longer than the session, so that the group gives its partitions away.
    MemberPaused,
    MemberJoins,
    BrokerRestarts,
    RulesBroken,
    Of(Receiver, Failure),
}

/// A server that the service sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Receiver {
    Mail,
    Revoker,
}

/// How a receiver fails, from before the round's events until after the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Refuses,
    LosesAnswers,
    Garbles,
    Fails,
    Hangs,
}

impl Fault {
    pub(super) const ALL: [(Self, &str); 19] = [
        (Self::StoreRefuses, "the proxy before ClickHouse refuses connections for 1 to 3 s"),
        (Self::StoreCuts, "the proxy cuts all connections to ClickHouse"),
        (Self::StoreDelays, "the proxy delays each piece of data by 300 ms for 1 to 3 s"),
        (Self::AnswersLost, "ClickHouse gets the requests, and its answers are lost for 1 to 3 s"),
        (Self::StoreKilled, "the process of the ClickHouse engine is killed and started again"),
        (Self::MemberPaused, "SIGSTOP of the service for 7 to 10 s (the session ends after 6 s), then SIGCONT"),
        (Self::MemberJoins, "a second member joins the group, and leaves it with SIGTERM or SIGKILL"),
        (Self::BrokerRestarts, "the Kafka broker is killed and started again"),
        (Self::RulesBroken, "a rule file is replaced by an invalid one and reloaded, then restored"),
        (Self::Of(Receiver::Mail, Failure::Refuses), "the mail server closes connections at once"),
        (Self::Of(Receiver::Mail, Failure::LosesAnswers), "the mail server's answers are lost"),
        (Self::Of(Receiver::Mail, Failure::Garbles), "the mail server answers with garbage"),
        (Self::Of(Receiver::Mail, Failure::Fails), "the mail server answers mails with 451"),
        (Self::Of(Receiver::Mail, Failure::Hangs), "the mail server accepts mails and does not answer"),
        (Self::Of(Receiver::Revoker, Failure::Refuses), "the revocation API closes connections at once"),
        (Self::Of(Receiver::Revoker, Failure::LosesAnswers), "the revocation API's answers are lost"),
        (Self::Of(Receiver::Revoker, Failure::Garbles), "the revocation API answers with garbage"),
        (Self::Of(Receiver::Revoker, Failure::Fails), "the revocation API answers 500, then 503, then 429"),
        (Self::Of(Receiver::Revoker, Failure::Hangs), "the revocation API does not answer"),
    ];
}

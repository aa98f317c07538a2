//! The faults of `make faults`.

use tokenwarden::kill_point::Step;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Only the kill.
    None,
    StoreRefuses,
    StoreCuts,
    StoreDelays,
    AnswersLost,
    StoreKilled,
    /// Longer than the session, so that the group gives its partitions away.
    MemberPaused,
    MemberJoins,
    BrokersRestart,
    LeaderKilled,
    DiskFull,
    Rules(Damage),
    GeoIp(Damage),
    Of(Receiver, Failure),
    /// The process kills itself at a step, instead of the kill at a random time.
    At(Step),
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
    /// For good: a mail, or the target of a revocation.
    Rejects,
    /// The credentials of the service.
    Forbids,
}

/// What replaces a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Damage {
    Truncated,
    Garbage,
    Empty,
    Missing,
    /// A valid file for another purpose.
    OtherKind,
}

const PLAIN: [(Fault, &str); 35] = [
    (Fault::StoreRefuses, "the proxy before ClickHouse refuses connections for 1 to 3 s"),
    (Fault::StoreCuts, "the proxy cuts all connections to ClickHouse"),
    (Fault::StoreDelays, "the proxy delays each piece of data by 300 ms for 1 to 3 s"),
    (Fault::AnswersLost, "ClickHouse gets the requests, and its answers are lost for 1 to 3 s"),
    (Fault::StoreKilled, "the process of the ClickHouse engine is killed and started again"),
    (Fault::MemberPaused, "SIGSTOP of the service for 7 to 10 s (the session ends after 6 s), then SIGCONT"),
    (Fault::MemberJoins, "a second member joins the group, and leaves it with SIGTERM or SIGKILL"),
    (Fault::BrokersRestart, "all three Kafka brokers are killed and started again"),
    (
        Fault::LeaderKilled,
        "the broker that leads a partition is killed, another one becomes its leader, and it returns",
    ),
    (Fault::DiskFull, "the disk of the outbox is full, also at the restart"),
    (Fault::Rules(Damage::Garbage), "a rule file is replaced by an invalid one and reloaded, then restored"),
    (Fault::Rules(Damage::Truncated), "a rule file is cut in half"),
    (Fault::Rules(Damage::Empty), "a rule file is empty"),
    (Fault::Rules(Damage::Missing), "a rule file is missing"),
    (Fault::GeoIp(Damage::Garbage), "a GeoIP file is replaced by garbage and reloaded, then restored"),
    (Fault::GeoIp(Damage::Truncated), "a GeoIP file is cut in half"),
    (Fault::GeoIp(Damage::Empty), "a GeoIP file is empty"),
    (Fault::GeoIp(Damage::Missing), "a GeoIP file is missing"),
    (Fault::GeoIp(Damage::OtherKind), "a GeoIP file of places is replaced by one of networks"),
    (Fault::Of(Receiver::Mail, Failure::Refuses), "the mail server closes connections at once"),
    (Fault::Of(Receiver::Mail, Failure::LosesAnswers), "the mail server's answers are lost"),
    (Fault::Of(Receiver::Mail, Failure::Garbles), "the mail server answers with garbage"),
    (Fault::Of(Receiver::Mail, Failure::Fails), "the mail server answers mails with 451"),
    (Fault::Of(Receiver::Mail, Failure::Hangs), "the mail server accepts mails and does not answer"),
    (Fault::Of(Receiver::Mail, Failure::Rejects), "the mail server rejects mails for good, with 550"),
    (Fault::Of(Receiver::Revoker, Failure::Refuses), "the revocation API closes connections at once"),
    (Fault::Of(Receiver::Revoker, Failure::LosesAnswers), "the revocation API's answers are lost"),
    (Fault::Of(Receiver::Revoker, Failure::Garbles), "the revocation API answers with garbage"),
    (Fault::Of(Receiver::Revoker, Failure::Fails), "the revocation API answers 500, then 503, then 429"),
    (Fault::Of(Receiver::Revoker, Failure::Hangs), "the revocation API does not answer"),
    (Fault::Of(Receiver::Revoker, Failure::Rejects), "the revocation API refuses targets for good, with 400"),
    (Fault::Of(Receiver::Revoker, Failure::Forbids), "the revocation API refuses the credentials, with 403"),
    // Three times, so that a kill without another fault happens more often.
    (Fault::None, "none"),
    (Fault::None, "none"),
    (Fault::None, "none"),
];

impl Fault {
    /// Every fault with its title. Only [`Self::None`] is there more than once.
    pub(super) fn all() -> Vec<(Self, String)> {
        let plain = PLAIN.iter().map(|(fault, title)| (*fault, (*title).to_owned()));
        let steps = Step::ALL
            .iter()
            .map(|(step, title)| (Self::At(*step), format!("none; the process is killed at the step: {title}")));
        plain.chain(steps).collect()
    }
}

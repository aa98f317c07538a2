//! Kinds of thefts: their names, and how many of each a simulation has.

/// Kind of a theft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TheftKind {
    /// Used from another country.
    Foreign,
    /// Used by the owner and a thief in the same country in turns.
    TwoHolders,
    /// Hundreds of calls in the owner's night.
    NightBurst,
    /// A refresh token presented again after its successor was in use.
    RefreshReuse,
    /// Many users' tokens of one application, used from few new addresses.
    Campaign,
    /// From a VPN exit or a rented server in the owner's country.
    SameCountryVpn,
    /// From homes in the owner's country, another one every few calls.
    ResidentialProxy,
    /// From the owner's own line, or from a neighbour's.
    Insider,
    /// A call or two on some days, for weeks.
    SlowAndLow,
    /// A session of the owner that the thief holds from its beginning.
    PhishedSession,
    /// A phone's tokens on another phone.
    ClonedMobile,
    /// A build job's secret outside of the build.
    LeakedCiSecret,
    /// Hundreds of objects, one after the other.
    RecordScraping,
    /// Each new access token of the owner is used elsewhere, for days.
    RotationBypass,
    /// A few calls with large responses.
    BulkExport,
    AfterRevocation,
    AfterLogout,
    AfterExpiry,
    /// With another key than the token is bound to.
    BindingMismatch,
    /// From another place, after the owner's password changed, with earlier tokens.
    StaleCredential,
    /// A service's client secret, with which the thief gets tokens.
    ClientSecret,
    /// One access token of a service.
    ServiceToken,
    /// A second device with the same key.
    DeviceClone,
    /// The key of a device that has not reported for weeks.
    SleepingKey,
    /// One user's grant to an aggregator.
    AggregatorGrant,
    /// Many users' grants to an aggregator, from few servers.
    AggregatorStore,
    /// During a session of an owner who uses VPNs, from a VPN.
    VpnThief,
    /// The thief signs in as the user.
    LoginTakeover,
    /// Many source files.
    SourceExfiltration,
    /// Lists of secrets, keys and jobs of repositories.
    SecretSearch,
}

/// Holders that a kind of theft concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Staff, machines and plugins of the companies.
    Companies,
    /// Services with a client secret.
    ServiceClients,
    /// Vehicles and trackers.
    Fleets,
    /// Grants to aggregators.
    Aggregators,
    /// People with the application of a consumer VPN.
    VpnPeople,
    /// People with grants in several applications.
    AccountHolders,
    /// Developers at a code hosting service.
    Developers,
}

impl TheftKind {
    /// Number of thefts of each kind in the fortnight.
    pub(crate) const FORTNIGHT: [(Self, u32); 5] = [
        (Self::Foreign, 6),
        (Self::TwoHolders, 6),
        (Self::NightBurst, 6),
        (Self::RefreshReuse, 6),
        (Self::Campaign, 3),
    ];

    /// Kinds of thefts in simulations of full depth.
    pub(crate) const DEEP: [Self; 19] = [
        Self::Foreign,
        Self::SameCountryVpn,
        Self::ResidentialProxy,
        Self::Insider,
        Self::SlowAndLow,
        Self::PhishedSession,
        Self::ClonedMobile,
        Self::LeakedCiSecret,
        Self::RecordScraping,
        Self::TwoHolders,
        Self::RotationBypass,
        Self::RefreshReuse,
        Self::BulkExport,
        Self::Campaign,
        Self::AfterRevocation,
        Self::AfterLogout,
        Self::AfterExpiry,
        Self::BindingMismatch,
        Self::StaleCredential,
    ];

    /// Kinds of thefts from the other populations.
    pub(crate) const WIDE: [Self; 10] = [
        Self::ClientSecret,
        Self::ServiceToken,
        Self::DeviceClone,
        Self::SleepingKey,
        Self::AggregatorGrant,
        Self::AggregatorStore,
        Self::VpnThief,
        Self::LoginTakeover,
        Self::SourceExfiltration,
        Self::SecretSearch,
    ];

    pub(crate) const fn group(self) -> Group {
        match self {
            Self::ClientSecret | Self::ServiceToken => Group::ServiceClients,
            Self::DeviceClone | Self::SleepingKey => Group::Fleets,
            Self::AggregatorGrant | Self::AggregatorStore => Group::Aggregators,
            Self::VpnThief => Group::VpnPeople,
            Self::LoginTakeover => Group::AccountHolders,
            Self::SourceExfiltration | Self::SecretSearch => Group::Developers,
            _ => Group::Companies,
        }
    }

    /// The name in labels.
    pub(crate) const fn scenario(self) -> &'static str {
        match self {
            Self::Foreign => "foreign_host",
            Self::TwoHolders => "online_theft",
            Self::NightBurst | Self::RecordScraping => "record_scraping",
            Self::RefreshReuse => "refresh_reuse",
            Self::Campaign => "app_campaign",
            Self::SameCountryVpn => "same_country_vpn",
            Self::ResidentialProxy => "residential_proxy",
            Self::Insider => "insider",
            Self::SlowAndLow => "slow_and_low",
            Self::PhishedSession => "phished_session",
            Self::ClonedMobile => "cloned_mobile_session",
            Self::LeakedCiSecret => "leaked_ci_secret",
            Self::RotationBypass => "rotation_bypass",
            Self::BulkExport => "bulk_export",
            Self::AfterRevocation => "use_after_revocation",
            Self::AfterLogout => "use_after_logout",
            Self::AfterExpiry => "use_after_expiry",
            Self::BindingMismatch => "binding_mismatch",
            Self::StaleCredential => "stale_credential",
            Self::ClientSecret => "client_secret_stolen",
            Self::ServiceToken => "service_token_copied",
            Self::DeviceClone => "device_clone",
            Self::SleepingKey => "sleeping_key_stolen",
            Self::AggregatorGrant => "aggregator_grant_stolen",
            Self::AggregatorStore => "aggregator_store_stolen",
            Self::VpnThief => "vpn_thief",
            Self::LoginTakeover => "login_takeover",
            Self::SourceExfiltration => "source_exfiltration",
            Self::SecretSearch => "secret_search",
        }
    }

    /// One line for a table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Foreign => "used from another continent",
            Self::TwoHolders => "used by two holders at once",
            Self::NightBurst => "a burst of calls by night",
            Self::RefreshReuse => "a refresh token presented twice",
            Self::Campaign => "one app's tokens from one new network",
            Self::SameCountryVpn => "used over a VPN in the owner's country",
            Self::ResidentialProxy => "used through homes in the owner's country",
            Self::Insider => "used from the owner's own network",
            Self::SlowAndLow => "a call now and then for weeks",
            Self::PhishedSession => "a session that began with the thief",
            Self::ClonedMobile => "a phone's tokens on another phone",
            Self::LeakedCiSecret => "a build secret outside the build",
            Self::RecordScraping => "records read one after the other",
            Self::RotationBypass => "each fresh token used elsewhere too",
            Self::BulkExport => "everything exported at once",
            Self::AfterRevocation => "used after its revocation",
            Self::AfterLogout => "used after its session ended",
            Self::AfterExpiry => "used after it expired",
            Self::BindingMismatch => "used with another key",
            Self::StaleCredential => "used after the password changed",
            Self::ClientSecret => "a service's secret used elsewhere",
            Self::ServiceToken => "a service's token used elsewhere",
            Self::DeviceClone => "a second device with the same key",
            Self::SleepingKey => "the key of a sleeping device",
            Self::AggregatorGrant => "one user's grant to an aggregator",
            Self::AggregatorStore => "an aggregator's store of grants",
            Self::VpnThief => "a thief and an owner on VPNs",
            Self::LoginTakeover => "a login by the thief",
            Self::SourceExfiltration => "many source files read",
            Self::SecretSearch => "secrets of repositories listed",
        }
    }

    /// Needs an earlier event that few owners have on a day.
    pub(super) const fn follows(self) -> bool {
        matches!(self, Self::AfterRevocation | Self::AfterLogout | Self::StaleCredential)
    }

    /// Continues for days.
    pub(super) const fn stays(self) -> bool {
        matches!(self, Self::SlowAndLow | Self::RotationBypass | Self::ClonedMobile)
    }
}

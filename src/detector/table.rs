//! The table of detectors.

/// Calls the macro `$then` with each detector and its module, in the order of scoring and explanation.
/// `fan` reads the evidence of those before it. To add a detector, add a line here and its `mod` in `detector/mod.rs`.
macro_rules! detectors {
    ($then:ident) => {
        $then! {
            Net = net,
            Client = client,
            Hour = hour,
            Route = route,
            Area = area,
            Switch = switch,
            Volume = volume,
            Lifecycle = lifecycle,
            Credential = credential,
            Fan = fan,
            Sibling = sibling,
            #[cfg(test)] Toy = toy,
        }
    };
}
pub(super) use detectors;

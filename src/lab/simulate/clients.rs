//! Client programs: realistic user agents, and JA4 fingerprints as an edge proxy adds them.

use std::sync::Arc;

use super::random::Random;

/// A program in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(crate) agent: String,
    pub(crate) fingerprint: &'static str,
}

/// A program in its versions, the oldest first.
pub(super) struct Product {
    pattern: &'static str,
    fingerprint: &'static str,
    versions: &'static [&'static str],
}

const CHROME: &[&str] = &["143.0.0.0", "144.0.0.0", "145.0.0.0"];
const FIREFOX: &[&str] = &["146.0", "147.0", "148.0"];
const JA4_CHROME: &str = "t13d1516h2_8daaf6152771_d8a2da3f94cd";
const JA4_FIREFOX: &str = "t13d1717h2_5b57614c22b0_3cbfd9057e0d";
const JA4_SAFARI: &str = "t13d2014h2_a09f3c656075_e42f34c56612";

/// Desktop browsers; common ones occur more than once.
pub(super) const BROWSERS: &[Product] = &[
    chrome(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version} Safari/537.36",
    ),
    chrome(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version} Safari/537.36",
    ),
    chrome(
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version} Safari/537.36",
    ),
    chrome("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version} Safari/537.36"),
    chrome(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version} Safari/537.36 Edg/{version}",
    ),
    Product {
        pattern: "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{version}) Gecko/20100101 Firefox/{version}",
        fingerprint: JA4_FIREFOX,
        versions: FIREFOX,
    },
    Product {
        pattern: "Mozilla/5.0 (X11; Linux x86_64; rv:{version}) Gecko/20100101 Firefox/{version}",
        fingerprint: JA4_FIREFOX,
        versions: FIREFOX,
    },
    Product {
        pattern: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{version} Safari/605.1.15",
        fingerprint: JA4_SAFARI,
        versions: &["26.1", "26.2", "26.3"],
    },
];

const fn chrome(pattern: &'static str) -> Product {
    Product { pattern, fingerprint: JA4_CHROME, versions: CHROME }
}

/// Phone applications; `{app}` is the application's name.
pub(super) const PHONES: &[Product] = &[
    Product {
        pattern: "{app}/{version} (iPhone16,1; iOS 26.2) CFNetwork/3860.300.31 Darwin/25.2.0",
        fingerprint: JA4_SAFARI,
        versions: &["7.40.1", "7.41.0", "7.42.0"],
    },
    Product {
        pattern: "{app}/{version} (iPhone14,5; iOS 18.7) CFNetwork/1568.300.101 Darwin/24.6.0",
        fingerprint: JA4_SAFARI,
        versions: &["7.40.1", "7.41.0", "7.42.0"],
    },
    Product {
        pattern: "{app}/{version} (Android 16; Pixel 9) okhttp/4.12.0",
        fingerprint: "t13d1513h2_8daaf6152771_eca864cca44a",
        versions: &["7.40.0", "7.41.0", "7.42.1"],
    },
    Product {
        pattern: "{app}/{version} (Android 15; SM-S911B) okhttp/4.12.0",
        fingerprint: "t13d1513h2_8daaf6152771_eca864cca44a",
        versions: &["7.40.0", "7.41.0", "7.42.1"],
    },
];

/// Developers' tools.
pub(super) const TOOLS: &[Product] = &[
    Product { pattern: "git/{version}", fingerprint: "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6", versions: &["2.51.0"] },
    Product {
        pattern: "forgectl/{version} (linux/amd64)",
        fingerprint: "t13i190900_9dc949149365_97f8aa674fd9",
        versions: &["1.14.1", "1.14.2"],
    },
    Product {
        pattern: "forgectl/{version} (darwin/arm64)",
        fingerprint: "t13i190900_9dc949149365_97f8aa674fd9",
        versions: &["1.14.1", "1.14.2"],
    },
];

/// HTTP libraries of services, of developers' scripts and of thieves.
pub(super) const LIBRARIES: &[Product] = &[
    Product {
        pattern: "python-requests/{version}",
        fingerprint: "t13d1812h1_85036bcba153_b26ce05bbdd6",
        versions: &["2.32.3", "2.32.5"],
    },
    Product {
        pattern: "curl/{version}",
        fingerprint: "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6",
        versions: &["8.14.1", "8.15.0"],
    },
    Product { pattern: "Go-http-client/2.0", fingerprint: "t13d1312h2_f57a46bbacb6_a35ab96a4437", versions: &["2.0"] },
    Product {
        pattern: "axios/{version}",
        fingerprint: "t13d5212h1_b262b3658495_8e6e362c5eac",
        versions: &["1.12.2", "1.13.2"],
    },
    Product {
        pattern: "Apache-HttpClient/{version} (Java/21.0.9)",
        fingerprint: "t13d491100_bd868743f55c_d41ae481755e",
        versions: &["5.5.1"],
    },
    Product {
        pattern: "okhttp/{version}",
        fingerprint: "t13d1513h2_8daaf6152771_eca864cca44a",
        versions: &["4.12.0", "5.3.0"],
    },
];

/// Editors of developers.
pub(super) const EDITORS: &[Product] = &[
    Product {
        pattern: "CodeDesk/{version} (darwin; arm64)",
        fingerprint: JA4_CHROME,
        versions: &["1.108.2", "1.109.0"],
    },
    Product { pattern: "CodeDesk/{version} (linux; x64)", fingerprint: JA4_CHROME, versions: &["1.108.2", "1.109.0"] },
    Product {
        pattern: "Larch/{version} (windows; x64)",
        fingerprint: "t13d491100_bd868743f55c_d41ae481755e",
        versions: &["2026.1", "2026.2"],
    },
];

/// Firmware of devices.
pub(super) const FIRMWARE: &[Product] = &[
    Product {
        pattern: "TrailUnit/{version} (TU-310; LTE)",
        fingerprint: "t12d190800_d83cc789557e_7af1ed941c26",
        versions: &["4.17.0", "4.18.1", "4.19.0"],
    },
    Product {
        pattern: "beacon-fw/{version} (BK2; modem 1.3.6)",
        fingerprint: "t12d100600_a1e935682795_1d1bb4a95c6c",
        versions: &["2.8.3", "2.9.0", "2.10.1"],
    },
];

impl Product {
    /// The product in version number `version`, or in the last one.
    pub(crate) fn client(&self, app: &str, version: usize) -> Arc<Client> {
        let version = self.versions[version.min(self.versions.len() - 1)];
        let agent = self.pattern.replace("{version}", version).replace("{app}", app);
        Arc::new(Client { agent, fingerprint: self.fingerprint })
    }

    pub(crate) fn any_client(&self, random: &mut Random) -> Arc<Client> {
        self.client("", random.below(self.versions.len() as u64) as usize)
    }
}

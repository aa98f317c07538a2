//! Damaged rule and GeoIP files in the running service.

use super::super::*;
use super::fault::Damage;
use super::stage::{GEOIP_FILES, Stage};

const RULE: &str = "rules/refresh_reuse.toml";

/// Replaces the file at once, as a tool does that writes a new version.
fn replace(file: &Path, content: &[u8]) {
    let draft = file.with_extension("draft");
    std::fs::write(&draft, content).expect("a file");
    std::fs::rename(draft, file).expect("it is renamed");
}

/// Damages the file. `other`: a file for another purpose.
fn damage(file: &Path, damage: Damage, other: &Path) {
    let whole = std::fs::read(file).expect("a file");
    match damage {
        Damage::Truncated => replace(file, &whole[..whole.len() / 2]),
        Damage::Garbage => replace(file, b"threshold = 'none'\n"),
        Damage::Empty => replace(file, b""),
        Damage::Missing => std::fs::remove_file(file).expect("a file"),
        Damage::OtherKind => replace(file, &std::fs::read(other).expect("a file")),
    }
}

impl Stage {
    /// Reloads the rules while a file is damaged, and restores the file. Meanwhile, the earlier rules apply.
    pub(super) fn break_rules(&self, kind: Damage, service: &Service) {
        let file = self.folder.path().join(RULE);
        let whole = std::fs::read(&file).expect("a rule");
        service.page("/healthz");
        damage(&file, kind, &file);
        service.signal("-HUP");
        service.until_metric("tokenwarden_rules_reload_refused 1");
        assert!(service.log().contains("rules not reloaded"), "{}", service.log());
        replace(&file, &whole);
        service.signal("-HUP");
        service.until_metric("tokenwarden_rules_reload_refused 0");
    }

    /// Reloads the GeoIP files while that of places is damaged. The places of the earlier file stay in use, which the
    /// comparison of the rows shows.
    pub(super) fn break_geoip(&self, kind: Damage, service: &Service) {
        let [city, asn] = GEOIP_FILES.map(|name| self.folder.path().join(name));
        // Its start has read the file.
        service.page("/healthz");
        damage(&city, kind, &asn);
        service.signal("-HUP");
        service.until_metric("tokenwarden_geoip_problems 1");
        assert!(service.log().contains("the previous version stays in use"), "{}", service.log());
    }

    pub(super) fn restore_geoip(&self, service: &Service) {
        let name = GEOIP_FILES[0];
        let whole = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("geoip/test").join(name));
        replace(&self.folder.path().join(name), &whole.expect("a GeoIP file"));
        service.signal("-HUP");
        service.until_metric("tokenwarden_geoip_problems 0");
    }
}

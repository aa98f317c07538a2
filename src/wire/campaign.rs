//! A campaign as one line of JSON.

use super::{time, verdict::text};
use crate::campaign::Campaign;

/// Appends the campaign as one JSON object and a newline. The same campaign gives the same bytes.
pub(crate) fn encode(out: &mut Vec<u8>, campaign: &Campaign) {
    for (name, value) in [
        ("{\"incident_id\":", &*campaign.id.to_string()),
        (",\"campaign_id\":", &*campaign.campaign_id.to_string()),
        (",\"tenant_id\":", &*campaign.tenant_id),
        (",\"place\":", &*campaign.place),
    ] {
        out.extend_from_slice(name.as_bytes());
        text(out, value);
    }
    out.extend_from_slice(b",\"opened_at\":\"");
    time::write(out, campaign.opened_at);
    out.extend_from_slice(b"\",\"users\":{");
    for (index, (rule, users)) in campaign.rules.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        out.extend_from_slice(format!("{comma}\"{rule}\":{users}").as_bytes());
    }
    out.extend_from_slice(b"},\"victims\":[");
    for (index, (at, victim)) in campaign.victims.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"first_at\":\"" } else { b"{\"first_at\":\"" });
        time::write(out, *at);
        out.push(b'"');
        let ids = [
            (",\"user_id\":", &victim.user_id),
            (",\"app_id\":", &victim.app_id),
            (",\"family_id\":", &victim.family_id),
            (",\"token_id\":", &victim.token_id),
        ];
        for (name, value) in ids.into_iter().filter(|(_, value)| !value.is_empty()) {
            out.extend_from_slice(name.as_bytes());
            text(out, value);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::verdict::{CampaignId, IncidentId, RuleId, Victim};

    #[test]
    fn campaign_is_one_line_of_json() {
        let at = Timestamp::from_millis(1_769_990_400_123).expect("a time");
        let victim = Victim { token_id: "t".to_owned(), user_id: "ana\n\u{202e}".to_owned(), ..Victim::default() };
        let campaign = Campaign {
            id: IncidentId(1),
            campaign_id: CampaignId(2),
            tenant_id: "acme".to_owned(),
            place: "NL, AS60781".to_owned(),
            opened_at: at,
            rules: vec![(RuleId::AppFanout, 5), (RuleId::IpFanout, 3)],
            victims: vec![(at, victim.clone()), (at, victim)],
        };
        let mut out = Vec::new();
        encode(&mut out, &campaign);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{202e}'), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["users"]["app_fanout"], 5);
        assert_eq!(read["victims"][1]["token_id"], "t");
        assert_eq!(read["opened_at"], "2026-02-02T00:00:00.123Z");
    }
}

//! Countries by code or by English name, for producers that send names.

use crate::place::Country;

/// Country of `DE`, `de` or `Germany`; `None` for codes and names that are not a country.
pub(super) fn of_code_or_name(text: &str) -> Option<Country> {
    match text.trim() {
        // Values of several GeoIP providers for "unknown", an anonymising proxy or a satellite user.
        "ZZ" | "XX" | "AP" | "EU" | "T1" => None,
        // Reserved for the United Kingdom, whose code is GB.
        "UK" => Country::parse("GB"),
        text => Country::parse(text).or_else(|| of_name(text)),
    }
}

fn of_name(name: &str) -> Option<Country> {
    let key = key(name);
    let at = NAMES.binary_search_by_key(&key.as_str(), |&(name, _)| name).ok()?;
    NAMES.get(at).and_then(|&(_, code)| Country::parse(code))
}

/// The letters of `text` in lower case, as in [`NAMES`]: "Côte d’Ivoire" and "Cote d'Ivoire" are equal.
fn key(name: &str) -> String {
    const LENGTH_MAX: usize = 80;
    let mut key = String::new();
    for character in name.chars().take(LENGTH_MAX) {
        match character {
            '&' => key.push_str("and"),
            'À'..='Å' | 'à'..='å' => key.push('a'),
            'Ç' | 'ç' => key.push('c'),
            'È'..='Ë' | 'è'..='ë' => key.push('e'),
            'Ì'..='Ï' | 'ì'..='ï' => key.push('i'),
            'Ò'..='Ö' | 'ò'..='ö' => key.push('o'),
            'Ù'..='Ü' | 'ù'..='ü' => key.push('u'),
            _ if character.is_ascii_alphabetic() => key.push(character.to_ascii_lowercase()),
            _ => {}
        }
    }
    match key.strip_prefix("st").filter(|_| name.starts_with("St. ")) {
        Some(rest) => format!("saint{rest}"),
        None => key,
    }
}

/// English names, in common use and in ISO 3166-1, letters only; sorted.
#[rustfmt::skip]
const NAMES: &[(&str, &str)] = &[
    ("afghanistan", "AF"), ("aland", "AX"), ("alandislands", "AX"), ("albania", "AL"), ("algeria", "DZ"),
    ("americansamoa", "AS"), ("andorra", "AD"), ("angola", "AO"), ("anguilla", "AI"), ("antarctica", "AQ"),
    ("antiguaandbarbuda", "AG"), ("argentina", "AR"), ("armenia", "AM"), ("aruba", "AW"), ("australia", "AU"),
    ("austria", "AT"), ("azerbaijan", "AZ"), ("bahamas", "BS"), ("bahrain", "BH"), ("bangladesh", "BD"),
    ("barbados", "BB"), ("belarus", "BY"), ("belgium", "BE"), ("belize", "BZ"), ("benin", "BJ"), ("bermuda", "BM"),
    ("bhutan", "BT"), ("bolivia", "BO"), ("boliviaplurinationalstateof", "BO"), ("bonairesinteustatiusandsaba", "BQ"),
    ("bosniaandherzegovina", "BA"), ("botswana", "BW"), ("bouvetisland", "BV"), ("brazil", "BR"),
    ("britishindianoceanterritory", "IO"), ("britishvirginislands", "VG"), ("brunei", "BN"),
    ("bruneidarussalam", "BN"), ("bulgaria", "BG"), ("burkinafaso", "BF"), ("burma", "MM"), ("burundi", "BI"),
    ("caboverde", "CV"), ("cambodia", "KH"), ("cameroon", "CM"), ("canada", "CA"), ("capeverde", "CV"),
    ("caribbeannetherlands", "BQ"), ("caymanislands", "KY"), ("centralafricanrepublic", "CF"), ("chad", "TD"),
    ("chile", "CL"), ("china", "CN"), ("christmasisland", "CX"), ("cocoskeelingislands", "CC"), ("colombia", "CO"),
    ("comoros", "KM"), ("congo", "CG"), ("congobrazzaville", "CG"), ("congodemocraticrepublic", "CD"),
    ("congokinshasa", "CD"), ("congorepublic", "CG"), ("cookislands", "CK"), ("costarica", "CR"),
    ("cotedivoire", "CI"), ("croatia", "HR"), ("cuba", "CU"), ("curacao", "CW"), ("cyprus", "CY"), ("czechia", "CZ"),
    ("czechrepublic", "CZ"), ("democraticpeoplesrepublicofkorea", "KP"), ("democraticrepublicofthecongo", "CD"),
    ("denmark", "DK"), ("djibouti", "DJ"), ("dominica", "DM"), ("dominicanrepublic", "DO"), ("drcongo", "CD"),
    ("easttimor", "TL"), ("ecuador", "EC"), ("egypt", "EG"), ("elsalvador", "SV"), ("equatorialguinea", "GQ"),
    ("eritrea", "ER"), ("estonia", "EE"), ("eswatini", "SZ"), ("ethiopia", "ET"), ("falklandislands", "FK"),
    ("falklandislandsmalvinas", "FK"), ("faroeislands", "FO"), ("federatedstatesofmicronesia", "FM"), ("fiji", "FJ"),
    ("finland", "FI"), ("france", "FR"), ("frenchguiana", "GF"), ("frenchpolynesia", "PF"),
    ("frenchsouthernterritories", "TF"), ("gabon", "GA"), ("gambia", "GM"), ("georgia", "GE"), ("germany", "DE"),
    ("ghana", "GH"), ("gibraltar", "GI"), ("greatbritain", "GB"), ("greece", "GR"), ("greenland", "GL"),
    ("grenada", "GD"), ("guadeloupe", "GP"), ("guam", "GU"), ("guatemala", "GT"), ("guernsey", "GG"),
    ("guinea", "GN"), ("guineabissau", "GW"), ("guyana", "GY"), ("haiti", "HT"), ("hashemitekingdomofjordan", "JO"),
    ("heardandmcdonaldislands", "HM"), ("heardislandandmcdonaldislands", "HM"), ("holysee", "VA"), ("honduras", "HN"),
    ("hongkong", "HK"), ("hongkongsarchina", "HK"), ("hungary", "HU"), ("iceland", "IS"), ("india", "IN"),
    ("indonesia", "ID"), ("iran", "IR"), ("iranislamicrepublicof", "IR"), ("iraq", "IQ"), ("ireland", "IE"),
    ("islamicrepublicofiran", "IR"), ("isleofman", "IM"), ("israel", "IL"), ("italy", "IT"), ("ivorycoast", "CI"),
    ("jamaica", "JM"), ("japan", "JP"), ("jersey", "JE"), ("jordan", "JO"), ("kazakhstan", "KZ"), ("kenya", "KE"),
    ("kiribati", "KI"), ("korea", "KR"), ("koreanorth", "KP"), ("korearepublicof", "KR"), ("koreasouth", "KR"),
    ("kosovo", "XK"), ("kuwait", "KW"), ("kyrgyzstan", "KG"), ("laopeoplesdemocraticrepublic", "LA"), ("laos", "LA"),
    ("latvia", "LV"), ("lebanon", "LB"), ("lesotho", "LS"), ("liberia", "LR"), ("libya", "LY"),
    ("liechtenstein", "LI"), ("lithuania", "LT"), ("luxembourg", "LU"), ("macao", "MO"), ("macaosarchina", "MO"),
    ("macau", "MO"), ("macedonia", "MK"), ("madagascar", "MG"), ("malawi", "MW"), ("malaysia", "MY"),
    ("maldives", "MV"), ("mali", "ML"), ("malta", "MT"), ("marshallislands", "MH"), ("martinique", "MQ"),
    ("mauritania", "MR"), ("mauritius", "MU"), ("mayotte", "YT"), ("mexico", "MX"), ("micronesia", "FM"),
    ("micronesiafederatedstatesof", "FM"), ("moldova", "MD"), ("moldovarepublicof", "MD"), ("monaco", "MC"),
    ("mongolia", "MN"), ("montenegro", "ME"), ("montserrat", "MS"), ("morocco", "MA"), ("mozambique", "MZ"),
    ("myanmar", "MM"), ("myanmarburma", "MM"), ("namibia", "NA"), ("nauru", "NR"), ("nepal", "NP"),
    ("netherlands", "NL"), ("newcaledonia", "NC"), ("newzealand", "NZ"), ("nicaragua", "NI"), ("niger", "NE"),
    ("nigeria", "NG"), ("niue", "NU"), ("norfolkisland", "NF"), ("northernmarianaislands", "MP"),
    ("northkorea", "KP"), ("northmacedonia", "MK"), ("norway", "NO"), ("oman", "OM"), ("pakistan", "PK"),
    ("palau", "PW"), ("palestine", "PS"), ("palestinestateof", "PS"), ("palestinianterritories", "PS"),
    ("panama", "PA"), ("papuanewguinea", "PG"), ("paraguay", "PY"), ("peru", "PE"), ("philippines", "PH"),
    ("pitcairn", "PN"), ("pitcairnislands", "PN"), ("poland", "PL"), ("portugal", "PT"), ("puertorico", "PR"),
    ("qatar", "QA"), ("republicofkorea", "KR"), ("republicoflithuania", "LT"), ("republicofmoldova", "MD"),
    ("republicofthecongo", "CG"), ("reunion", "RE"), ("reunionisland", "RE"), ("romania", "RO"), ("russia", "RU"),
    ("russianfederation", "RU"), ("rwanda", "RW"), ("saintbarthelemy", "BL"), ("sainthelena", "SH"),
    ("saintkittsandnevis", "KN"), ("saintlucia", "LC"), ("saintmartin", "MF"), ("saintmartinfrenchpart", "MF"),
    ("saintpierreandmiquelon", "PM"), ("saintvincentandgrenadines", "VC"), ("samoa", "WS"), ("sanmarino", "SM"),
    ("saotomeandprincipe", "ST"), ("saudiarabia", "SA"), ("senegal", "SN"), ("serbia", "RS"), ("seychelles", "SC"),
    ("sierraleone", "SL"), ("singapore", "SG"), ("sinmaarten", "SX"), ("sintmaarten", "SX"), ("slovakia", "SK"),
    ("slovenia", "SI"), ("solomonislands", "SB"), ("somalia", "SO"), ("southafrica", "ZA"),
    ("southgeorgiaandsouthsandwichislands", "GS"), ("southkorea", "KR"), ("southsudan", "SS"), ("spain", "ES"),
    ("srilanka", "LK"), ("stateofpalestine", "PS"), ("sudan", "SD"), ("suriname", "SR"),
    ("svalbardandjanmayen", "SJ"), ("swaziland", "SZ"), ("sweden", "SE"), ("switzerland", "CH"), ("syria", "SY"),
    ("syrianarabrepublic", "SY"), ("taiwan", "TW"), ("taiwanprovinceofchina", "TW"), ("tajikistan", "TJ"),
    ("tanzania", "TZ"), ("tanzaniaunitedrepublicof", "TZ"), ("thailand", "TH"), ("thebahamas", "BS"),
    ("thegambia", "GM"), ("thenetherlands", "NL"), ("timorleste", "TL"), ("togo", "TG"), ("tokelau", "TK"),
    ("tonga", "TO"), ("trinidadandtobago", "TT"), ("tunisia", "TN"), ("turkey", "TR"), ("turkiye", "TR"),
    ("turkmenistan", "TM"), ("turksandcaicosislands", "TC"), ("tuvalu", "TV"), ("uganda", "UG"), ("uk", "GB"),
    ("ukraine", "UA"), ("unitedarabemirates", "AE"), ("unitedkingdom", "GB"),
    ("unitedkingdomofgreatbritainandnorthernireland", "GB"), ("unitedrepublicoftanzania", "TZ"),
    ("unitedstates", "US"), ("unitedstatesminoroutlyingislands", "UM"), ("unitedstatesofamerica", "US"),
    ("uruguay", "UY"), ("usa", "US"), ("usminoroutlyingislands", "UM"), ("usoutlyingislands", "UM"),
    ("usvirginislands", "VI"), ("uzbekistan", "UZ"), ("vanuatu", "VU"), ("vaticancity", "VA"), ("venezuela", "VE"),
    ("venezuelabolivarianrepublicof", "VE"), ("vietnam", "VN"), ("vietnamsocialistrepublicof", "VN"),
    ("wallisandfutuna", "WF"), ("westernsahara", "EH"), ("yemen", "YE"), ("zambia", "ZM"), ("zimbabwe", "ZW"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn country_names_are_sorted_with_valid_codes() {
        assert!(NAMES.is_sorted_by(|(a, _), (b, _)| a < b));
        assert!(NAMES.iter().all(|(name, code)| key(name) == *name && Country::parse(code).is_some()));
    }

    #[test]
    fn country_is_found_by_code_and_by_name() {
        for (text, code) in [
            ("de", "DE"),
            ("United States", "US"),
            ("united kingdom", "GB"),
            ("Türkiye", "TR"),
            ("Turkey", "TR"),
            ("Côte d’Ivoire", "CI"),
            ("Cote d'Ivoire", "CI"),
            ("St. Lucia", "LC"),
            ("Saint Lucia", "LC"),
            ("Trinidad and Tobago", "TT"),
            ("Korea, Republic of", "KR"),
            ("Hong Kong", "HK"),
            ("Cocos (Keeling) Islands", "CC"),
        ] {
            assert_eq!(of_code_or_name(text).map(|country| country.to_string()).as_deref(), Some(code), "{text}");
        }
        for text in ["", "ZZ", "T1", "Atlantis", "D"] {
            assert_eq!(of_code_or_name(text), None, "{text}");
        }
    }
}

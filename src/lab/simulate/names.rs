//! Names of people.

/// A readable, unique name.
pub(super) fn user_name(number: u64) -> String {
    const FIRST: &[&str] = &[
        "mia", "noah", "lea", "amir", "sofia", "lucas", "yuki", "priya", "tom", "ines", "omar", "clara", "jan", "rosa",
        "kofi", "emma", "luis", "anja", "ravi", "zoe", "hugo", "nina", "paul", "aiko", "dan", "vera", "ben", "lara",
        "igor", "maya", "leon", "ada",
    ];
    const LAST: &[&str] = &[
        "novak", "silva", "meyer", "tanaka", "dubois", "patel", "smith", "rossi", "larsen", "garcia", "kowalski",
        "brown", "haddad", "moreau", "weber", "costa", "jones", "sato", "berg", "okafor", "martin", "singh", "klein",
        "lopez", "walsh", "peters", "kim", "fischer", "young", "duarte", "lind",
    ];
    let (first, last) = (FIRST.len() as u64, LAST.len() as u64);
    let name = format!("{}.{}", FIRST[(number % first) as usize], LAST[(number / first % last) as usize]);
    match number / (first * last) {
        0 => name,
        again => format!("{name}{}", again + 1),
    }
}

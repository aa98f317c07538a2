//! Accounts of machines in records of operating systems. They are not users.

/// Accounts of a machine. Source: Microsoft, "Well-known SIDs".
pub(crate) const MACHINES: &[&str] = &[
    "S-1-0-*",
    "S-1-1-*",
    "S-1-2-*",
    "S-1-3-*",
    "S-1-5-1",
    "S-1-5-2",
    "S-1-5-3",
    "S-1-5-4",
    "S-1-5-6",
    "S-1-5-7",
    "S-1-5-8",
    "S-1-5-9",
    "S-1-5-10",
    "S-1-5-11",
    "S-1-5-13",
    "S-1-5-14",
    "S-1-5-15",
    "S-1-5-17",
    "S-1-5-18",
    "S-1-5-19",
    "S-1-5-20",
    "S-1-5-80-*",
    "S-1-5-82-*",
    "S-1-5-83-*",
    "S-1-5-90-*",
    "S-1-5-96-*",
    "NT AUTHORITY\\*",
    "NT SERVICE\\*",
    "*$",
];

/// Accounts of a machine, by name.
pub(crate) const NAMES_OF_MACHINES: &[&str] =
    &["SYSTEM", "LOCAL SERVICE", "NETWORK SERVICE", "ANONYMOUS LOGON", "DWM-*", "UMFD-*", "*$"];

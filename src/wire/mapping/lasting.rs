//! Distinguishes session names that a person chose from those that a program generated.

/// Whether a session name is stable or names a person. A program's generated name contains a time, a date, or the id of
/// a task, an instance, a pod or a commit. Numbers of up to eight digits may belong to a person's name.
pub(crate) fn is_lasting(name: &str) -> bool {
    // Mail addresses belong to people (IAM Identity Center, federation).
    if name.split_once('@').is_some_and(|(_, domain)| domain.contains('.')) {
        return true;
    }
    !(has_number(name) || has_date(name) || has_hash(name) || has_random(name))
}

/// Nine digits in a row: seconds, milliseconds or nanoseconds since 1970, ticks, numbers of runs.
fn has_number(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() >= 9)
}

/// A date with its year, as `2026-09-21`, `20260921` or `21.09.2026`.
fn has_date(name: &str) -> bool {
    let number = |part: &str| part.parse::<u32>().unwrap_or_default();
    let is_date = |year: &str, month: &str, day: &str| {
        (1970..2200).contains(&number(year)) && (1..=12).contains(&number(month)) && (1..=31).contains(&number(day))
    };
    let runs: Vec<&str> = name.split(|c: char| !c.is_ascii_digit()).collect();
    let together = runs.iter().any(|run| {
        let part = |from: usize, to: usize| run.get(from..to).unwrap_or_default();
        run.len() == 8 && is_date(part(0, 4), part(4, 6), part(6, 8))
    });
    together
        || runs.windows(3).any(|parts| match parts {
            [a, b, c] if a.len() == 4 && b.len() == 2 && c.len() == 2 => is_date(a, b, c),
            [a, b, c] if a.len() == 2 && b.len() == 2 && c.len() == 4 => is_date(c, b, a),
            _ => false,
        })
}

/// Eight or more hexadecimal digits in a row, with at least two letters and two numbers: ids of tasks, instances and
/// pods, UUIDs, hashes of commits.
fn has_hash(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_hexdigit()).any(|run| {
        let digits = run.bytes().filter(u8::is_ascii_digit).count();
        run.len() >= 8 && digits >= 2 && run.len() - digits >= 2
    })
}

/// Letters and digits as a generator chooses them: a ULID, or a mixture of capitals, small letters and digits that
/// words do not have (ids of runs and executions).
fn has_random(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
        let count = |is: fn(&u8) -> bool| run.bytes().filter(is).count();
        let (capitals, small) = (count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
        let digits = run.len() - capitals - small;
        let is_ulid = run.len() == 26 && small == 0 && digits >= 4 && capitals >= 4;
        let is_mixed = capitals * 10 >= run.len() * 3 && small * 4 >= run.len();
        is_ulid || is_mixed && (run.len() >= 16 && digits >= 2 || run.len() >= 24)
    })
}

#[cfg(test)]
mod tests {
    use super::is_lasting;

    #[test]
    fn generated_session_names_are_not_lasting() {
        for name in [
            "botocore-session-1790028800",
            "aws-sdk-java-1790028800123",
            "aws-go-sdk-1790028800123456789",
            "1790028800123456789",
            "AWS-CLI-session-1790028800",
            "aws-dotnet-sdk-session-639000000000000000",
            "terraform-2026-09-21T10-00-00Z",
            "nightly-20260921",
            "export_21.09.2026",
            "0f3e9a7c5b1d4e8f9a2b3c4d5e6f7a8b",
            "i-0abc123def4567890",
            "eks-prod-web-7d9f8b6c5d-4a1b2c3d-5e6f-7a8b-9c0d-1e2f3a4b5c6d",
            "build-3f9a2c1b",
            "web-identity-token-1790028800",
            "AWSCodeBuild-1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
            // A run of HCP Terraform, an execution of AWS Step Functions, a ULID.
            "terraform-run-CZcmD7eagjhyX0vN",
            "RFXrVnPMKcIAkRlZUeIKvXILiVXHYLyD",
            "01JD8Z4W8Q4R5V6T7X8Y9Z0A1B",
        ] {
            assert!(!is_lasting(name), "{name}");
        }
        for name in [
            "dev-a@example.com",
            "1234567890@example.com",
            "deploy-77",
            "GitHubActions",
            "AWSCLI-Session",
            "jane.doe",
            "E1234567",
            "facade",
            "cafebabe",
            "prod-eu-central-1",
            "order-service-v2",
            "OrderServiceV2ProductionEuCentral1",
            "ProductionDeploymentAutomation",
            "EC2InstanceRoleForSSM",
            "PRODUCTION-EXPORT-JOB-2",
            "",
        ] {
            assert!(is_lasting(name), "{name}");
        }
    }
}

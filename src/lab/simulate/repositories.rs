//! Repositories of a code hosting service: their names, the paths of their files, and the part in which a developer
//! works. A file is a number: 6 bits for the file, 14 for its directory, the others for its repository.

use super::random::Random;

/// Number of repositories.
pub(super) const REPOSITORIES: u64 = 240;

/// Number of directories of a repository.
const DIRECTORIES: u64 = 1 << 14;

/// Number of files of a directory.
const FILES: u64 = 1 << 6;

const OWNERS: [&str; 6] = ["forgeworks", "platform-team", "mobile-apps", "data-eng", "infra-core", "labs"];
const SUBJECTS: [&str; 10] =
    ["billing", "search", "ingest", "gateway", "ledger", "mailer", "catalog", "session", "report", "media"];
const FORMS: [&str; 4] = ["service", "web", "sdk", "jobs"];
const TOPS: [&str; 8] = ["src", "lib", "services", "web", "docs", "tools", "deploy", "tests"];
const MODULES: [&str; 16] = [
    "auth", "cache", "cart", "client", "config", "events", "export", "http", "import", "index", "jobs", "model",
    "notify", "parser", "storage", "users",
];
const PARTS: [&str; 8] = ["api", "core", "internal", "handlers", "schema", "store", "util", "views"];
const STEMS: [&str; 16] = [
    "main", "index", "types", "errors", "routes", "server", "client", "helpers", "state", "query", "table", "loader",
    "format", "policy", "worker", "README",
];
const ENDINGS: [&str; 4] = ["rs", "ts", "py", "md"];

/// Number of a file; the parts are taken modulo their ranges.
pub(super) const fn file(repository: u64, directory: u64, number: u64) -> u64 {
    (repository % REPOSITORIES) * DIRECTORIES * FILES + (directory % DIRECTORIES) * FILES + number % FILES
}

/// The repository of a file.
pub(super) const fn repository(file: u64) -> u64 {
    file / (DIRECTORIES * FILES)
}

/// `route` with the names of a file's repository and path instead of `{repo}` and `{file}`.
pub(super) fn fill(route: &str, file: u64) -> String {
    let at = |table: &[&'static str], number: u64| table[(number % table.len() as u64) as usize];
    let repository = repository(file);
    let (subject, form) = (at(&SUBJECTS, repository / 6), at(&FORMS, repository / 60));
    let name = format!("{}/{subject}-{form}", at(&OWNERS, repository));
    let directory = file / FILES % DIRECTORIES;
    let mut path = format!("{}/{}", at(&TOPS, directory), at(&MODULES, directory / 8));
    if directory >= 128 {
        path = format!("{path}/{}", at(&PARTS, directory / 128));
    }
    if directory >= 1_024 {
        path = format!("{path}/{}", at(&MODULES, directory / 1_024));
    }
    let number = file % FILES;
    let path = format!("{path}/{}.{}", at(&STEMS, number), at(&ENDINGS, number / 16));
    route.replace("{repo}", &name).replace("{file}", &path)
}

/// Directories in which a developer works, by repository.
#[derive(Clone, Debug)]
pub(super) struct WorkingSet {
    /// The most used ones first.
    repositories: Vec<(u64, Vec<u64>)>,
}

impl WorkingSet {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut set = Self { repositories: Vec::new() };
        for _ in 0..random.within(2..6) {
            set.begin_repository(random);
        }
        set
    }

    /// Another repository becomes the most used one.
    pub(super) fn begin_repository(&mut self, random: &mut Random) {
        let area = random.below(128);
        let directories = (0..random.within(3..11)).map(|_| area + 128 * random.below(128)).collect();
        self.repositories.insert(0, (random.below(REPOSITORIES), directories));
    }

    /// A file, mostly in the first directories of the first repositories.
    pub(super) fn choose(&self, random: &mut Random) -> u64 {
        let rank = |count: usize, random: &mut Random| (random.pareto(1.0, 0.8) as usize - 1) % count;
        let (repository, directories) = &self.repositories[rank(self.repositories.len(), random)];
        let directory = directories[rank(directories.len(), random)];
        file(*repository, directory, rank(FILES as usize, random) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_numbers_have_names() {
        let route = "/v1/repos/{repo}/contents/{file}";
        assert_eq!(
            fill(route, file(7, 8 + 128 + 1_024, 17)),
            "/v1/repos/platform-team/search-service/contents/src/cache/core/cache/index.ts"
        );
        let paths: std::collections::HashSet<String> =
            (0..REPOSITORIES).map(|repository| fill(route, file(repository, 0, 0))).collect();
        assert_eq!(paths.len() as u64, REPOSITORIES);
    }
}

//! The house rules that no compiler checks: which folder may name what, how long a file may grow,
//! what may lie in the visible root, and words that no finished file contains.
//!
//! Every rule reports a sentence that says what is wrong and where. The files are those git knows
//! or would add, so a breach shows before it is committed. What clippy and rustfmt check is not
//! repeated here.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of the map, `src/lib.rs`.
const MAP_LINES_MAX: usize = 200;
/// Lines of `src/main.rs`.
const MAIN_LINES_MAX: usize = 80;

/// What the visible root may hold; everything else there starts with a dot.
const ROOT: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "benches",
    "loadtest",
    "src",
    "tests",
];

/// Folder, and the words its code must not contain. A word that ends in `::` is a path.
const NEVER_IN: &[(&str, &[&str])] = &[
    (
        "src/engine/",
        &["glommio", "tokio", "axum", "rdkafka", "UdpSocket", "Instant::now", "async fn"],
    ),
    ("src/shard/", &["tokio", "axum", "rdkafka"]),
    (
        "src/ortc/",
        &[
            "glommio",
            "tokio",
            "axum",
            "rdkafka",
            "str0m",
            "Instant",
            "Mutex",
            "RefCell",
            "Cell",
            "OnceLock",
            "LazyLock",
            "thread_local",
            "static mut",
            "async fn",
        ],
    ),
    (
        "src/api/",
        &["glommio", "rdkafka", "str0m", "engine::", "crate::engine", "shard::", "crate::shard"],
    ),
    ("loadtest/", &["ringcast::", "use ringcast", "extern crate ringcast"]),
];

/// A word, and the only places whose code may contain it.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("glommio::", &["src/shard/", "src/node/"]),
    ("axum::", &["src/api/", "src/events/", "src/metrics/", "src/node/"]),
    ("rdkafka::", &["src/events/kafka.rs"]),
    ("recvmmsg", &["src/shard/socket.rs"]),
    ("sendmmsg", &["src/shard/socket.rs"]),
    // The lint that every `unsafe` has to except: for calls of the kernel without a wrapper.
    ("unsafe_code", &["src/shard/socket.rs", "src/shard/bpf.rs"]),
    ("libc::syscall", &["src/shard/bpf.rs"]),
    ("catch_unwind", &["src/engine/", "src/shard/", "src/node/"]),
];

/// Names that say nothing, so that everything would fit in.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "manager", "stuff"];

/// Words that no finished file contains, in two halves so that this file does not contain them.
const UNFINISHED: &[[&str; 2]] =
    &[["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["todo", "!("], ["unimplemented", "!("]];

/// One file of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file is the foot of another one: its tests, moved out.
    fn is_tests_of_a_module(&self) -> bool {
        self.path.starts_with("src/") && self.path.ends_with("/tests.rs")
    }

    /// The lines before the tests at the foot of the file.
    fn before_tests(&self) -> impl Iterator<Item = &str> {
        self.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"))
    }

    /// Code before the tests, without comments: the rules bind what the code names, and a comment
    /// may say what lies on the other side of a wall.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = if self.is_tests_of_a_module() { 0 } else { usize::MAX };
        self.before_tests()
            .take(lines)
            .enumerate()
            .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }

    /// Numbers of the lines whose code contains `word` as a whole word.
    fn lines_with(&self, word: &str) -> Vec<usize> {
        self.code().filter(|(_, line)| has_word(line, word)).map(|(number, _)| number).collect()
    }
}

fn is_word_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `word` stands in `line` and is not a part of a longer identifier.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, found)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + found.len()..).and_then(|text| text.chars().next());
        let goes_on = found.ends_with(is_word_character) && after.is_some_and(is_word_character);
        !before.is_some_and(is_word_character) && !goes_on
    })
}

/// The repository's files, as git has them or would add them, that are text.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .expect("git is installed: the rules are about the files it knows");
    assert!(listed.status.success(), "git lists the files of a checkout");
    let sources: Vec<Source> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|path| {
            let text = fs::read_to_string(root.join(path)).ok()?;
            Some(Source { path: path.to_owned(), text })
        })
        .collect();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the list is of this tree");
    sources
}

/// Fails with every sentence there is, so that one run shows all breaches.
fn report(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} breaches:\n  {}", breaches.len(), breaches.join("\n  "));
}

#[test]
fn no_folder_names_what_lies_behind_its_wall() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        for (folder, words) in NEVER_IN.iter().filter(|(at, _)| source.path.starts_with(at)) {
            for word in *words {
                for line in source.lines_with(word) {
                    let path = &source.path;
                    breaches.push(format!("{path}:{line}: `{folder}` must not contain `{word}`"));
                }
            }
        }
    }
    report(&breaches);
}

#[test]
fn each_foreign_name_stands_only_where_it_belongs() {
    let mut breaches = Vec::new();
    let all = sources();
    let own = all.iter().filter(|source| source.is_rust() && source.path.starts_with("src/"));
    for source in own {
        for (word, places) in ONLY_IN {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for line in source.lines_with(word) {
                let at = places.join(", ");
                breaches.push(format!("{}:{line}: `{word}` may stand only in {at}", source.path));
            }
        }
    }
    report(&breaches);
}

#[test]
fn the_load_test_does_not_depend_on_the_server() {
    let all = sources();
    let manifest = all.iter().find(|source| source.path == "loadtest/Cargo.toml");
    let manifest = manifest.expect("the load test is a workspace member");
    let named = manifest.text.lines().any(|line| {
        let name = line.split(['=', '.']).next().unwrap_or_default().trim();
        name == "ringcast" || line.contains("package = \"ringcast\"")
    });
    assert!(!named, "loadtest/Cargo.toml: a black-box client must not depend on `ringcast`");
}

#[test]
fn no_file_grows_without_end() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust()) {
        let most = match source.path.as_str() {
            "src/lib.rs" => MAP_LINES_MAX,
            "src/main.rs" => MAIN_LINES_MAX,
            _ => FILE_LINES_MAX,
        };
        let lines = source.before_tests().count();
        if lines > most {
            let path = &source.path;
            breaches.push(format!("{path}: {lines} lines before its tests, {most} are allowed"));
        }
    }
    report(&breaches);
}

#[test]
fn every_rust_file_opens_with_what_it_is() {
    let opens = |source: &Source| source.text.starts_with("//!");
    let breaches: Vec<String> = sources()
        .iter()
        .filter(|source| source.is_rust() && !source.is_tests_of_a_module() && !opens(source))
        .map(|source| format!("{}: the first line is not module documentation", source.path))
        .collect();
    report(&breaches);
}

#[test]
fn the_visible_root_holds_what_the_card_names() {
    let mut breaches: Vec<String> = sources()
        .iter()
        .filter_map(|source| source.path.split('/').next())
        .filter(|top| !top.starts_with('.') && !ROOT.contains(top))
        .map(|top| format!("{top}: the visible root holds only {}", ROOT.join(", ")))
        .collect();
    breaches.dedup();
    report(&breaches);
}

#[test]
fn no_file_is_called_by_an_empty_name() {
    let breaches: Vec<String> = sources()
        .iter()
        .filter(|source| {
            let parts = source.path.split(['/', '.']);
            parts.into_iter().any(|part| EMPTY_NAMES.contains(&part))
        })
        .map(|source| format!("{}: this name fits everything; say what it is", source.path))
        .collect();
    report(&breaches);
}

#[test]
fn nothing_is_unfinished_and_no_test_is_switched_off() {
    let ignored = ["#[ig", "nore"].concat();
    let allowed = ["[al", "low("].concat();
    let mut breaches = Vec::new();
    for source in sources() {
        let path = &source.path;
        for (index, line) in source.text.lines().enumerate() {
            let number = index + 1;
            for word in UNFINISHED.iter().map(|halves| halves.concat()) {
                if has_word(line, &word) {
                    breaches.push(format!("{path}:{number}: `{word}`: finish it or file an issue"));
                }
            }
            if source.is_rust() && line.contains(&ignored) {
                breaches.push(format!("{path}:{number}: a test that never runs proves nothing"));
            }
            if source.is_rust() && line.trim_start().starts_with('#') && line.contains(&allowed) {
                let instead = "write `#[expect(…, reason = \"…\")]`";
                breaches.push(format!("{path}:{number}: an exception without end; {instead}"));
            }
        }
    }
    report(&breaches);
}

#[test]
fn a_word_is_found_whole_and_only_in_code() {
    for (line, word, found) in [
        ("use tokio::net;", "tokio", true),
        ("let tokio_like = 1;", "tokio", false),
        ("use my_tokio;", "tokio", false),
        ("let at = Instant::now();", "Instant::now", true),
        ("use crate::shard::Shard;", "shard::", true),
        ("use crate::my_shard::Shard;", "shard::", false),
        ("pub async fn run()", "async fn", true),
    ] {
        assert_eq!(has_word(line, word), found, "`{word}` in `{line}`");
    }
    let text = "//! tokio\nuse std; // tokio\nlet a = tokio;\n#[cfg(test)]\nuse tokio;\n";
    let source = Source { path: "src/x.rs".to_owned(), text: text.to_owned() };
    assert_eq!(source.lines_with("tokio"), [3]);
}

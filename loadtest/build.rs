//! Notes the commit that this program is built from, for its results: "unknown" outside git.

use std::process::Command;

/// What git answers; `None` without git, outside a repository, or when it refuses.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    // Of this program's own files only: they are what cargo looks at before it runs this again.
    let changed = git(&["status", "--porcelain", "--", "."]).is_some_and(|list| !list.is_empty());
    let commit = commit.map(|commit| if changed { commit + "-changed" } else { commit });
    println!("cargo::rustc-env=LOADTEST_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-changed=build.rs");
    // A commit moves one of these.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

//! What lies on disk: the folder of undelivered events.

use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::Finding;
use crate::config::Config;
use crate::limits::SPOOL_BYTES_MAX;

pub(super) fn spool(config: &Config) -> Option<Finding> {
    const CHECK: &str = "spool";
    let outlets = &config.outlets;
    let users = usize::from(outlets.kafka.is_some()) + usize::from(outlets.webhook.is_some());
    match &outlets.spool_dir {
        _ if users == 0 => None,
        None => Some(Finding::warn(
            CHECK,
            "no folder for undelivered events: a restart loses them",
            "--spool-dir /var/lib/ringcast (systemd: StateDirectory=ringcast)",
        )),
        Some(folder) => Some(judge(CHECK, folder, users)),
    }
}

fn judge(check: &'static str, folder: &Path, users: usize) -> Finding {
    // The server makes what is missing: then what is above must permit that.
    let Some(existing) = folder.ancestors().find(|path| path.exists()) else {
        return Finding::fail(
            check,
            format!("{} is nowhere", folder.display()),
            "an absolute path",
        );
    };
    let mend = format!("install -d -m 700 -o $(id -un) {}", folder.display());
    if !existing.is_dir() {
        return Finding::fail(check, format!("{} is no folder", existing.display()), mend);
    }
    if let Err(error) = access(existing, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        return Finding::fail(
            check,
            format!("cannot write to {}: {error}: the server would not start", existing.display()),
            mend,
        );
    }
    let free =
        statvfs(existing).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let wanted = SPOOL_BYTES_MAX.saturating_mul(u64::try_from(users).unwrap_or(1));
    let mebibytes = |bytes: u64| bytes / 1024 / 1024;
    if free < wanted {
        return Finding::warn(
            check,
            format!(
                "{} MiB are free for {}, it may grow to {} MiB: events may be lost while their \
                 destination is away",
                mebibytes(free),
                folder.display(),
                mebibytes(wanted)
            ),
            "make room, or name another folder with --spool-dir",
        );
    }
    Finding::ok(check, format!("{} can be written to", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_folder_must_be_there_or_makeable() {
        let temp = std::env::temp_dir();
        let file = temp.join(format!("ringcast-doctor-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        for (folder, level) in [
            (temp.clone(), Level::Ok),
            (temp.join("ringcast-none/of/this"), Level::Ok),
            (file.join("below-a-file"), Level::Fail),
        ] {
            let finding = judge("spool", &folder, 1);
            assert_eq!(finding.level, level, "{finding:?}");
            assert_eq!(finding.mend.is_some(), level != Level::Ok);
        }
        assert!(!temp.join("ringcast-none").exists(), "a check changes nothing");
        let full = judge("spool", &temp, usize::MAX);
        assert_eq!(full.level, Level::Warn, "{full:?}");
        std::fs::remove_file(&file).unwrap();
    }
}

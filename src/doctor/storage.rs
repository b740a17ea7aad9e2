//! What lies on disk: certificate and key, and the folder of undelivered events.

use std::path::Path;

use std::time::Duration;

use rustix::fs::{Access, access, statvfs};
use rustix::time::{ClockId, clock_gettime};

use super::Finding;
use crate::api::serving::tls::certificate_validity;
use crate::config::{Config, TlsConfig};
use crate::limits::{SPOOL_BYTES_MAX, TLS_EXPIRY_WARNING};

pub(super) fn tls(config: &Config) -> Option<Finding> {
    let files = config.connections.tls.as_ref()?;
    let now = u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or_default();
    Some(judge_tls(files, Duration::from_secs(now)))
}

fn judge_tls(files: &TlsConfig, now: Duration) -> Finding {
    const CHECK: &str = "tls";
    const MEND: &str = "renew it, then systemctl reload ringcast (or send SIGHUP)";
    let (begins, ends) = match certificate_validity(files) {
        Ok(validity) => validity,
        Err(error) => {
            let says = format!("{error}: the server would not start");
            return Finding::fail(CHECK, says, "mend --tls-cert and --tls-key, or leave both out");
        }
    };
    if begins > now {
        let says = "the certificate is not valid yet: browsers refuse it";
        return Finding::fail(CHECK, says, "see whether this host's clock is right");
    }
    let Some(left) = ends.checked_sub(now) else {
        return Finding::fail(CHECK, "the certificate has expired: browsers refuse it", MEND);
    };
    let days = left.as_secs() / (24 * 60 * 60);
    if left <= TLS_EXPIRY_WARNING {
        return Finding::warn(CHECK, format!("the certificate ends in {days} days"), MEND);
    }
    Finding::ok(CHECK, format!("certificate and key belong together, for {days} days more"))
}

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
    // The kernel's own file systems take no folder from anybody.
    let makes_none = existing != folder && is_of_the_kernel(existing);
    if makes_none {
        return Finding::fail(
            check,
            format!(
                "{} cannot be made: {} takes no folders: the server would not start",
                folder.display(),
                existing.display()
            ),
            "name another folder with --spool-dir",
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

/// Whether a folder is in a file system without blocks, such as /proc and /sys, which lets root
/// believe that it may write there.
fn is_of_the_kernel(folder: &Path) -> bool {
    folder.starts_with("/proc") || folder.starts_with("/sys")
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_key_and_its_end() {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let folder = std::env::temp_dir().join(format!("ringcast-pair-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["call.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let ends = Duration::from_secs(1_893_456_000);
        let files = TlsConfig { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        let level = |now| judge_tls(&files, now).level;
        assert_eq!(level(ends - 90 * DAY), Level::Fail, "there is none");
        std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert_eq!(level(ends - 90 * DAY), Level::Fail, "the key is another's");
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        assert_eq!(level(ends - 90 * DAY), Level::Ok);
        assert_eq!(level(ends - 3 * DAY), Level::Warn);
        assert_eq!(level(ends + DAY), Level::Fail);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_must_be_there_or_makeable() {
        let temp = std::env::temp_dir();
        let file = temp.join(format!("ringcast-doctor-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        for (folder, level) in [
            (temp.clone(), Level::Ok),
            (temp.join("ringcast-none/of/this"), Level::Ok),
            (file.join("below-a-file"), Level::Fail),
            ("/proc/nope".into(), Level::Fail),
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

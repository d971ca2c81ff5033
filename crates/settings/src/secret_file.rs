//! Files with secrets in them: what everybody on the machine can read is none.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where container runtimes mount secrets, readable by all of the container, which is what separates them there.
const MOUNTS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];
const OTHERS_READ: u32 = 0o004;

/// The text of the file.
///
/// # Errors
/// It cannot be read; or everybody can.
pub fn read(path: &Path) -> io::Result<String> {
    check(path, &std::fs::metadata(path)?)?;
    std::fs::read_to_string(path)
}

/// Refuses a file that everybody can read. (A group can be given a secret on purpose.)
///
/// # Errors
/// Says so, and what to do.
pub fn check(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS_READ == 0 || !metadata.is_file() || MOUNTS.iter().any(|mounts| path.starts_with(mounts)) {
        return Ok(());
    }
    let path = path.display();
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "everybody on this machine can read it (its mode is {mode:04o}), so it is no secret. Run: chmod o= {path} \
             (in Kubernetes: defaultMode: 0440 of the volume, with fsGroup), and make a new secret if others use this machine"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn what_everybody_can_read_is_refused() {
        let path = std::env::temp_dir().join(format!("secret-file-{}", uuid::Uuid::new_v4()));
        fs::write(&path, "text").expect("writes");
        for (mode, good) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o604, false), (0o444, false)]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("permissions");
            match read(&path) {
                Ok(text) => assert!(good && text == "text", "{mode:o}"),
                Err(error) => {
                    let said = error.to_string();
                    assert!(!good && said.contains("chmod o=") && said.contains(&format!("{mode:04o}")), "{said}");
                }
            }
        }
        // what is no file (a pipe of the shell, say) has no mode that says anything
        check(&path, &fs::metadata("/dev/null").expect("there")).expect("taken");
        let mount = Path::new("/run/secrets/primetrade");
        check(mount, &fs::metadata(&path).expect("there")).expect("taken");
        fs::remove_file(path).expect("removes");
    }
}

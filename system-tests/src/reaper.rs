//! Nothing outlives the test process: a shell that reads from a pipe what was started, and ends it when the pipe
//! closes, which it does however the test process ends.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
hard=' '; soft=' '; dirs=''; stacks=''
while read -r verb what; do
    case $verb in
        kill) hard="$hard$what " ;;
        quit) soft="$soft$what " ;;
        dir) dirs="$dirs $what" ;;
        stack) stacks="$stacks$what
" ;;
        gone) hard=$(echo "$hard" | sed "s/ $what / /"); soft=$(echo "$soft" | sed "s/ $what / /") ;;
    esac
done
while IFS= read -r dir; do
    for part in "$dir"/*/; do
        pid=$(head -n 1 "$part/pid" 2>/dev/null) || continue
        case $part in
            */postgres/) soft="$soft$pid " ;;
            # its workers would outlive a kill -9
            */gateway/) kill -TERM "$pid" 2>/dev/null ;;
            *) hard="$hard$pid " ;;
        esac
    done
done <<END
$stacks
END
for pid in $hard; do kill -9 "$pid" 2>/dev/null; done
for pid in $soft; do kill -CONT "$pid" 2>/dev/null; kill -QUIT "$pid" 2>/dev/null; done
for pid in $soft; do
    n=0
    while kill -0 "$pid" 2>/dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
done
[ -z "$dirs" ] || rm -rf $dirs
"#;

fn reaper() -> &'static Mutex<Child> {
    static REAPER: OnceLock<Mutex<Child>> = OnceLock::new();
    REAPER.get_or_init(|| {
        raise_open_files();
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell");
        Mutex::new(child)
    })
}

/// A thousand simultaneous requests are two thousand sockets; children inherit the limit.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn tell(line: &str) {
    let mut reaper = reaper().lock().expect("reaper");
    if let Some(pipe) = reaper.stdin.as_mut() {
        let _ = writeln!(pipe, "{line}");
    }
}

/// This process is to be killed at the end.
pub fn kill_at_end(pid: u32) {
    tell(&format!("kill {pid}"));
}

/// This Postgres is to be shut down at the end (at once, but freeing its shared memory).
pub fn quit_at_end(pid: u32) {
    tell(&format!("quit {pid}"));
}

/// What `bin/stack` has started in this folder is to be ended at the end.
pub fn stack_at_end(dir: &Path) {
    tell(&format!("stack {}", dir.display()));
}

/// This process has ended already; its number may be somebody else's from here on.
pub fn gone(pid: u32) {
    tell(&format!("gone {pid}"));
}

/// This folder is to be removed at the end.
pub fn remove_at_end(dir: &Path) {
    tell(&format!("dir {}", dir.display()));
}

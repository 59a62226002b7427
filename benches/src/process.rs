//! What the kernel knows of a process, and of this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Ticks of `/proc/<pid>/stat` in a second: Linux shows them so on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of CPU that a process has used, in user and in kernel mode; `self` is this one.
pub fn cpu_seconds(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process has a stat");
    // The name may hold spaces; what follows it does not.
    let (_, fields) = stat.rsplit_once(')').expect("the name stands in brackets");
    let ticks = |n: usize| fields.split_whitespace().nth(n).and_then(|t| t.parse::<f64>().ok()).expect("a number");
    // utime and stime, fields 14 and 15 of proc(5), where the third is the first behind the name.
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// How often its threads have gone to sleep by themselves: each time something woke them.
pub fn sleeps(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process has threads");
    let of_thread = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    threads.flatten().filter_map(of_thread).sum()
}

/// Space that a directory takes on disk.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(dir).expect("the directory can be read").flatten();
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // A file that the store has just removed.
        Err(_) => 0,
    };
    entries.map(of_entry).sum()
}

/// Sockets and listeners for a thousand subscribers need more descriptors than a shell gives.
pub fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, connecting will say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// What a command says, or that it cannot be said.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let text = output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    text.map_or_else(|| "unknown".into(), |text| text.trim().to_owned())
}

/// The commit that this was built from, as far as git knows.
pub fn commit() -> String {
    said("git", &["describe", "--always", "--dirty", "--abbrev=10"])
}

/// (what, how it is here): the machine's description.
pub fn machine() -> Vec<(&'static str, String)> {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        found.map_or_else(|| "unknown".into(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory_kib: f64 = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(f64::NAN);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (median, p99) = crate::ceiling::bare_sync(dir.path());
    vec![
        ("CPU", field("/proc/cpuinfo", "model name")),
        ("cores, for server, driver and receiver together", cores.to_string()),
        ("memory", format!("{:.1} GiB", memory_kib / 1_048_576.0)),
        ("kernel", kernel.trim().to_owned()),
        ("4 KiB append and fdatasync", format!("median {median:.2} ms, p99 {p99:.2} ms")),
        ("rustc", said("rustc", &["--version"])),
        ("profile", if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned()),
        ("commit of this page", commit()),
    ]
}

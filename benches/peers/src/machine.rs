//! The heading of a run: its machine and its versions.

use std::{fs, process::Command, thread};

/// The crates whose versions are told.
const CRATES: [&str; 7] = [
    "tower-throttle",
    "tower_governor",
    "governor",
    "axum-governor",
    "axum_gcra",
    "axum",
    "tower",
];

/// Prints the date, the machine, the compiler and the versions of the crates.
pub fn print() {
    println!("{}; {}.", date(), machine());
    println!("Built with {}.", env!("BUILT_WITH"));
    let lock = include_str!("../Cargo.lock");
    let versions = CRATES.map(|name| format!("{name} {}", locked(lock, name)));
    println!("{}.", versions.join(", "));
    println!("{}\n", load());
}

/// How busy the machine is, beside this program and because of it.
pub fn load() -> String {
    let load = first_line("/proc/loadavg");
    let minute = load.split(' ').next().unwrap_or("?");
    format!("Load of the minute before: {minute}.")
}

fn date() -> String {
    let told = Command::new("date")
        .args(["--utc", "+%F %H:%M UTC"])
        .output();
    let told = told.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&told).trim().to_owned()
}

fn machine() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name| {
        let value = |line: &str| {
            Some(
                line.strip_prefix(name)?
                    .split_once(':')?
                    .1
                    .trim()
                    .to_owned(),
            )
        };
        about.lines().find_map(value)
    };
    let model = field("model name").unwrap_or_else(|| "a processor without a name".to_owned());
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let kernel = first_line("/proc/sys/kernel/osrelease");
    // Only x86 tells; a virtual machine of another kind is known by its vendor.
    let guest =
        field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let guest = if guest {
        "virtualised"
    } else {
        "not known to be virtualised"
    };
    let vendor = first_line("/sys/class/dmi/id/sys_vendor");
    let vendor = Some(vendor).filter(|vendor| !vendor.is_empty());
    let vendor = vendor.map_or_else(String::new, |vendor| format!(" ({vendor})"));
    format!("{processors} processors of {model}, Linux {kernel}, {guest}{vendor}")
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// The version of a crate in a lock file; the newest, which stands last, where there are several.
fn locked<'a>(lock: &'a str, name: &str) -> &'a str {
    let name = format!("name = \"{name}\"");
    let versions = lock.lines().zip(lock.lines().skip(1));
    let version = versions.filter(|(line, _)| *line == name).last();
    let version = version.and_then(|(_, version)| version.split('"').nth(1));
    version.unwrap_or_else(|| panic!("{name} is locked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_has_a_version_in_the_lock_file() {
        let lock = include_str!("../Cargo.lock");
        for name in CRATES {
            assert!(locked(lock, name).starts_with(|first: char| first.is_ascii_digit()));
        }
    }

    #[test]
    fn the_newest_of_several_versions_is_told() {
        let lock = "name = \"axum\"\nversion = \"0.7.9\"\n\nname = \"axum\"\nversion = \"0.8.9\"\n";
        assert_eq!(locked(lock, "axum"), "0.8.9");
    }
}

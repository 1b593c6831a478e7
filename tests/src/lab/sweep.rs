//! Namespaces outlive a killed process. So each carries its maker's process id and start time in its name, and every
//! new lab first removes those whose maker is gone.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::LabError;
use super::space::{Space, execute};

static LABS: AtomicU32 = AtomicU32::new(0);

/// `yodel-PID-START-N`, in front of the names of one lab's namespaces.
pub(super) fn fresh_prefix() -> Result<String, LabError> {
    let pid = std::process::id();
    let started = started(pid).ok_or(std::io::Error::other("no /proc to look into"))?;
    Ok(format!("yodel-{pid}-{started}-{}", LABS.fetch_add(1, Ordering::Relaxed)))
}

/// Removes the namespaces of dead makers, with what still runs in them; returns how many.
///
/// # Errors
/// `ip` failed.
pub fn sweep() -> Result<usize, LabError> {
    let listed = execute(Command::new("ip").args(["netns", "list"]))?;
    let stale: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| is_stale(name))
        .collect();
    for name in &stale {
        Space::named(name).remove();
    }
    Ok(stale.len())
}

/// Removes this process's own namespaces, with what runs in them: before an end that drops nothing.
///
/// # Errors
/// `ip` failed.
pub fn remove_own() -> Result<(), LabError> {
    let pid = std::process::id();
    let started = started(pid).ok_or(std::io::Error::other("no /proc to look into"))?;
    let listed = execute(Command::new("ip").args(["netns", "list"]))?;
    let own = format!("yodel-{pid}-{started}-");
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| name.starts_with(&own)) {
        Space::named(name).remove();
    }
    Ok(())
}

fn is_stale(name: &str) -> bool {
    let mut words = name.split('-');
    if words.next() != Some("yodel") {
        return false;
    }
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(pid), Some(start)) = (number(), number()) else { return false };
    u32::try_from(pid).ok().and_then(started) != Some(start)
}

/// When a process started, in the kernel's ticks: field 22 of its stat line, counted behind the command's name, which
/// may hold anything.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_namespaces_of_the_dead_are_stale() {
        assert!(!is_stale(&format!("{}-home", fresh_prefix().unwrap())));
        assert!(is_stale(&format!("yodel-{}-1-0-home", std::process::id())), "the id was used again");
        assert!(is_stale("yodel-4194399-5-0-home"));
        assert!(!is_stale("somebody-elses"));
        assert!(!is_stale("yodel-demo"));
    }
}

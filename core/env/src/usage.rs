//! What this process has used so far, as the kernel tells it.

/// Processor time of this process, nanoseconds; 0 where the kernel does not tell.
pub fn cpu_nanos() -> u64 {
    let usage = |who| nix::sys::resource::getrusage(who).ok();
    let time = usage(nix::sys::resource::UsageWho::RUSAGE_SELF).map(|u| (u.user_time(), u.system_time()));
    time.map_or(0, |(user, system)| {
        let nanos = |t: nix::sys::time::TimeVal| t.tv_sec() as u64 * 1_000_000_000 + t.tv_usec() as u64 * 1000;
        nanos(user) + nanos(system)
    })
}

/// Memory of this process that is in RAM, bytes; 0 where the kernel does not tell.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as u64
}

/// Memory that another process of this user has for itself, bytes: in RAM or swapped out, without files that it has mapped, such as
/// its executable. 0 where there is no such process.
pub fn own_bytes_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let counted = matches!(name, "RssAnon" | "RssShmem" | "VmSwap");
        counted.then(|| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).flatten()
    });
    own.sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_used_something() {
        assert!(super::cpu_nanos() > 0);
        assert!(super::resident_bytes() > 1 << 20);
        let before = super::own_bytes_of(std::process::id());
        let held = vec![1u8; 32 << 20];
        let after = super::own_bytes_of(std::process::id());
        assert!(before > 0 && after >= before + (30 << 20), "{before} {after}");
        assert_eq!(super::own_bytes_of(u32::MAX), 0);
        drop(held);
    }
}

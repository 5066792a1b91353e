//! Can this executable run on those machines? Looks at the ELF file without running it.
//!
//! Compared are the architecture, the interpreter and the highest `GLIBC_x.y` that it asks for.

use object::{
    Architecture, Object,
    read::elf::{FileHeader, SectionHeader as _},
};

/// What an executable needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// `x86_64`, `aarch64`…
    pub architecture: String,
    /// The dynamic loader; `None` for a static executable.
    pub interpreter: Option<String>,
    /// Highest glibc version that it asks for.
    pub glibc: Option<(u32, u32)>,
}

/// What a machine offers, as TaskManagers report it: `x86_64 glibc-2.36`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// As in [`Needs`].
    pub architecture: String,
    /// Its glibc; `None` where there is another libc.
    pub glibc: Option<(u32, u32)>,
}

impl Platform {
    /// Reads a report.
    pub fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let architecture = words.next().unwrap_or_default().to_owned();
        let glibc = words.find_map(|w| version(w.strip_prefix("glibc-")?));
        Self { architecture, glibc }
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next().unwrap_or("0").parse().ok()?))
}

/// What the executable needs. The error says why it is none.
pub fn inspect(bytes: &[u8]) -> Result<Needs, String> {
    if !bytes.starts_with(b"\x7fELF") {
        let script = bytes.starts_with(b"#!");
        let what = if script { "a script" } else { "not an ELF file" };
        return Err(format!("the job is {what}: submit the executable that cargo built for Linux"));
    }
    let file = object::File::parse(bytes).map_err(|e| format!("the executable is damaged: {e}"))?;
    let architecture = match file.architecture() {
        Architecture::X86_64 => "x86_64".to_owned(),
        Architecture::Aarch64 => "aarch64".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    let mut needs = Needs { architecture, interpreter: None, glibc: None };
    if let object::File::Elf64(elf) = &file {
        read_elf64(elf, bytes, &mut needs);
    }
    Ok(needs)
}

fn read_elf64(elf: &object::read::elf::ElfFile64<'_>, bytes: &[u8], needs: &mut Needs) {
    let endian = elf.endian();
    let header = elf.elf_header();
    for segment in header.program_headers(endian, bytes).unwrap_or_default() {
        use object::read::elf::ProgramHeader as _;
        if let Ok(Some(name)) = segment.interpreter(endian, bytes) {
            needs.interpreter = Some(String::from_utf8_lossy(name).into_owned());
        }
    }
    let Ok(sections) = header.sections(endian, bytes) else { return };
    for section in sections.iter() {
        let Ok(Some((mut entries, link))) = section.gnu_verneed(endian, bytes) else { continue };
        let Ok(strings) = sections.strings(endian, bytes, link) else { continue };
        while let Ok(Some((_, mut versions))) = entries.next() {
            while let Ok(Some(aux)) = versions.next() {
                let Ok(name) = aux.name(endian, strings) else { continue };
                let asked = std::str::from_utf8(name).ok().and_then(|n| version(n.strip_prefix("GLIBC_")?));
                needs.glibc = needs.glibc.max(asked);
            }
        }
    }
}

impl Needs {
    /// Can it run there? The error says what to do.
    pub fn check(&self, platform: &Platform) -> Result<(), String> {
        if self.architecture != platform.architecture {
            return Err(format!(
                "the executable is for {}, the TaskManager is {}: build it with --target {}-unknown-linux-gnu",
                self.architecture, platform.architecture, platform.architecture
            ));
        }
        match (self.glibc, platform.glibc) {
            (Some(needs), Some(has)) if needs > has => Err(format!(
                "the executable needs glibc {}.{}, the TaskManager has {}.{}: build it on a machine as old as the oldest TaskManager, or for a musl target",
                needs.0, needs.1, has.0, has.1
            )),
            (Some(needs), None) => Err(format!(
                "the executable needs glibc {}.{}, the TaskManager has another libc: build it for a musl target",
                needs.0, needs.1
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_test_runs_here() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = inspect(&bytes).unwrap();
        assert_eq!(needs.architecture, std::env::consts::ARCH);
        let same = Platform { architecture: needs.architecture.clone(), glibc: needs.glibc };
        assert_eq!(needs.check(&same), Ok(()));
        if let Some((major, minor)) = needs.glibc {
            assert!(needs.interpreter.is_some() && (major, minor) >= (2, 0), "{needs:?}");
            let older = Platform { glibc: Some((2, 1)), ..same.clone() };
            assert!(needs.check(&older).unwrap_err().contains("build it on a machine as old"));
        }
        let other = Platform { architecture: "riscv64".into(), ..same };
        assert!(needs.check(&other).unwrap_err().contains("--target riscv64"));
    }

    #[test]
    fn what_is_no_executable_is_said_and_damage_never_panics() {
        assert!(inspect(b"#!/bin/sh\n").unwrap_err().contains("a script"));
        assert!(inspect(b"").unwrap_err().contains("not an ELF"));
        let bytes = std::fs::read("/bin/true").unwrap();
        for cut in [4, 16, 64, 100, bytes.len() / 2] {
            let _ = inspect(&bytes[..cut.min(bytes.len())]);
        }
        for at in 4..200.min(bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = inspect(&damaged);
        }
    }

    #[test]
    fn a_platform_reads_its_report() {
        let platform = Platform::parse("x86_64 glibc-2.36");
        assert_eq!(platform, Platform { architecture: "x86_64".into(), glibc: Some((2, 36)) });
        assert_eq!(Platform::parse("x86_64 musl").glibc, None);
    }
}

//! What an ELF file says about itself, as far as preloading depends on it.

use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, Sym};
use object::read::{FileKind, ReadCache, ReadRef};
use std::fs::File;
use std::path::Path;

/// The facts that decide whether a library can be preloaded into a program, or is one.
#[derive(Debug, PartialEq)]
pub struct Elf {
    /// A 64-bit file.
    pub wide: bool,
    /// `e_machine`.
    pub machine: elf::Machine,
    /// The program's loader; none in a static program, and none in a library.
    pub loader: Option<String>,
    /// Defines `malloc` where the loader sees it.
    pub defines_malloc: bool,
}

impl Elf {
    /// Reads the file's headers. None when it is not an ELF file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or its headers contradict each other.
    pub fn read(path: &Path) -> anyhow::Result<Option<Elf>> {
        let cache = ReadCache::new(File::open(path)?);
        match FileKind::parse(&cache) {
            Ok(FileKind::Elf64) => parse::<FileHeader64<Endianness>, _>(&cache).map(Some),
            Ok(FileKind::Elf32) => parse::<FileHeader32<Endianness>, _>(&cache).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether the file is for the machine and the word size that this command was built for.
    pub fn fits(&self) -> bool {
        self.wide == cfg!(target_pointer_width = "64") && self.machine == MACHINE
    }

    /// The word size and the machine, as `32-bit i386`.
    pub fn kind(&self) -> String {
        let machine = match self.machine {
            elf::EM_386 => "i386".to_owned(),
            elf::EM_X86_64 => "x86-64".to_owned(),
            elf::EM_ARM => "arm".to_owned(),
            elf::EM_AARCH64 => "aarch64".to_owned(),
            elf::EM_RISCV => "riscv".to_owned(),
            elf::EM_PPC64 => "ppc64".to_owned(),
            elf::EM_S390 => "s390".to_owned(),
            other => format!("machine {}", other.0),
        };
        format!("{} {machine}", if self.wide { "64-bit" } else { "32-bit" })
    }
}

/// The machine this command was built for; none where preloading is not known to work.
const MACHINE: elf::Machine = if cfg!(target_arch = "x86_64") {
    elf::EM_X86_64
} else if cfg!(target_arch = "aarch64") {
    elf::EM_AARCH64
} else if cfg!(target_arch = "riscv64") {
    elf::EM_RISCV
} else {
    elf::EM_NONE
};

/// This command's own word size and machine.
pub fn own_kind() -> String {
    let wide = cfg!(target_pointer_width = "64");
    Elf { wide, machine: MACHINE, loader: None, defines_malloc: false }.kind()
}

fn parse<'data, H, R>(data: R) -> anyhow::Result<Elf>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let mut loader = None;
    for segment in header.program_headers(endian, data)? {
        if let Some(name) = segment.interpreter(endian, data)? {
            loader = Some(String::from_utf8_lossy(name).into_owned());
        }
    }
    let sections = header.sections(endian, data)?;
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let defines_malloc = symbols.iter().any(|symbol| {
        symbol.is_definition(endian, symbols.strings())
            && symbol.name(endian, symbols.strings()) == Ok(b"malloc")
    });
    Ok(Elf { wide: header.is_type_64(), machine: header.e_machine(endian), loader, defines_malloc })
}

//! The kernel's `bpf(2)` as far as steering needs it: maps, one kind of program, and an assembler.
//!
//! Called by [`steer`](super::steer): on the node's thread at start, and for map entries on each
//! shard's. Invariants: keys and values have the sizes their map was made with, by type; every
//! pointer given to the kernel outlives its call; a descriptor closes with its owner. It does not
//! know what a program means, and needs no compiler and no library beside the kernel.
//!
//! Not under Miri, which knows none of these system calls; the tests of `steer` run them for real.
#![expect(unsafe_code, reason = "bpf(2) and one socket option have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROGRAM_LOAD: libc::c_int = 5;
const MAP_LOOKUP_AND_DELETE: libc::c_int = 21;

/// `BPF_PROG_TYPE_SK_REUSEPORT`.
const SK_REUSEPORT: u32 = 21;
/// `BPF_SK_REUSEPORT_SELECT`, the expected attach type.
const SK_REUSEPORT_SELECT: u32 = 39;

/// Bytes of the verifier's log that are kept: its last lines say what it refuses.
const LOG_BYTES: usize = 64 * 1024;
const LOG_TAIL_CHARS: usize = 600;

/// Words of `union bpf_attr` given to the kernel; those it does not know must be zero.
const ATTRIBUTE_WORDS: usize = 16;
type Attributes = [u64; ATTRIBUTE_WORDS];
const ATTRIBUTE_BYTES: libc::c_uint = 128;
const _: () = assert!(ATTRIBUTE_BYTES as usize == size_of::<Attributes>());

/// Two `u32` fields of `union bpf_attr` that follow each other.
fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn fd_field(fd: RawFd) -> u64 {
    pair(u32::try_from(fd).unwrap_or(u32::MAX), 0)
}

fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.addr()).unwrap_or_default()
}

/// One call; whatever the attributes point to must be alive and as large as the command says.
///
/// # Safety
/// Every pointer among the attributes is valid for what `command` reads or writes through it.
unsafe fn bpf(command: libc::c_int, attributes: &mut Attributes) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are a live array of the length given; what they point to is the
    // caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), ATTRIBUTE_BYTES) };
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes what a successful call made.
fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for this caller alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The kinds of map in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapKind {
    /// `BPF_MAP_TYPE_HASH`, its entries allocated when they are made.
    Hash,
    /// `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`.
    Sockets,
}

impl MapKind {
    /// Type and flags (`BPF_F_NO_PREALLOC` is 1).
    fn numbers(self) -> (u32, u32) {
        match self {
            Self::Hash => (1, 1),
            Self::Sockets => (20, 0),
        }
    }
}

/// What an update may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    /// Makes the entry or overwrites it.
    Any,
    /// Makes the entry, if there is none.
    New,
}

/// A map with keys of `K` bytes and values of `V`.
#[derive(Debug)]
pub(super) struct Map<const K: usize, const V: usize>(OwnedFd);

impl<const K: usize, const V: usize> Map<K, V> {
    /// An empty map for at most `entries`.
    pub(super) fn new(kind: MapKind, entries: u32) -> io::Result<Self> {
        let (kind, flags) = kind.numbers();
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut attributes: Attributes = [0; ATTRIBUTE_WORDS];
        let [first, second, third, ..] = &mut attributes;
        *first = pair(kind, size(K));
        *second = pair(size(V), entries);
        *third = pair(flags, 0);
        // SAFETY: MAP_CREATE takes no pointer here.
        unsafe { bpf(MAP_CREATE, &mut attributes) }.map(|fd| Self(owned(fd)))
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// `E2BIG` when the map is full.
    pub(super) fn set(&self, key: &[u8; K], value: &[u8; V], update: Update) -> io::Result<()> {
        let flags = if update == Update::New { 1 } else { 0 };
        self.call(MAP_UPDATE, key, address(value.as_ptr()), flags)
    }

    /// The value under a key.
    pub(super) fn value(&self, key: &[u8; K]) -> io::Result<[u8; V]> {
        let mut value = [0; V];
        self.call(MAP_LOOKUP, key, address(value.as_mut_ptr()), 0)?;
        Ok(value)
    }

    /// Takes an entry out: reading and deleting are one step (Linux 5.14).
    pub(super) fn take(&self, key: &[u8; K]) -> io::Result<[u8; V]> {
        let mut value = [0; V];
        self.call(MAP_LOOKUP_AND_DELETE, key, address(value.as_mut_ptr()), 0)?;
        Ok(value)
    }

    /// Deletes an entry.
    pub(super) fn delete(&self, key: &[u8; K]) -> io::Result<()> {
        self.call(MAP_DELETE, key, 0, 0)
    }

    fn call(&self, command: libc::c_int, key: &[u8; K], value: u64, flags: u64) -> io::Result<()> {
        let mut attributes: Attributes = [0; ATTRIBUTE_WORDS];
        let [fd, key_at, value_at, flags_at, ..] = &mut attributes;
        *fd = fd_field(self.0.as_raw_fd());
        *key_at = address(key.as_ptr());
        *value_at = value;
        *flags_at = flags;
        // SAFETY: this private function is called with the address of a live array of V bytes
        // (mutable where the command writes it) or, to delete, with none; the key has K bytes; the
        // map was made with these sizes, so the kernel touches no more.
        unsafe { bpf(command, &mut attributes) }.map(drop)
    }
}

/// A verified program that chooses a socket of a `SO_REUSEPORT` group.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

impl Program {
    /// Has the kernel verify and translate the instructions.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF`; else what the verifier says, with the end of its log.
    pub(super) fn load(instructions: &[Instruction]) -> io::Result<Self> {
        let error = match Self::try_load(instructions, &mut []) {
            Err(error) if error.raw_os_error() != Some(libc::EPERM) => error,
            done => return done,
        };
        let mut log = vec![0; LOG_BYTES];
        let again = Self::try_load(instructions, &mut log);
        let text = String::from_utf8_lossy(&log);
        let text = text.trim_end_matches(['\0', '\n']);
        let skipped = text.chars().count().saturating_sub(LOG_TAIL_CHARS);
        let tail: String = text.chars().skip(skipped).collect();
        again.map_err(|_| io::Error::new(error.kind(), format!("{error}: {tail}")))
    }

    fn try_load(instructions: &[Instruction], log: &mut [u8]) -> io::Result<Self> {
        let count = u32::try_from(instructions.len()).unwrap_or(u32::MAX);
        let log_bytes = u32::try_from(log.len()).unwrap_or_default();
        let mut attributes: Attributes = [0; ATTRIBUTE_WORDS];
        let [kind, code, license, log_size, log_at, _, _, _, attach, ..] = &mut attributes;
        *kind = pair(SK_REUSEPORT, count);
        *code = address(instructions.as_ptr());
        *license = address(c"GPL".as_ptr());
        if log_bytes > 0 {
            *log_size = pair(1, log_bytes);
            *log_at = address(log.as_mut_ptr());
        }
        *attach = pair(0, SK_REUSEPORT_SELECT);
        // SAFETY: the instructions are a live slice of eight bytes each, `count` of them; the
        // license is a static string that ends in zero; the log is a live slice of its length,
        // borrowed mutably.
        unsafe { bpf(PROGRAM_LOAD, &mut attributes) }.map(|fd| Self(owned(fd)))
    }

    /// Lets the program choose for the whole group that `socket` is in, as long as it has members.
    pub(super) fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        const FD_BYTES: libc::socklen_t = 4;
        let fd: RawFd = self.0.as_raw_fd();
        // SAFETY: the pointer and length name the local `fd`, which the kernel only reads, and
        // during the call only.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_EBPF,
                (&raw const fd).cast(),
                FD_BYTES,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// One instruction as the kernel reads it (`struct bpf_insn`): eight bytes.
pub(super) type Instruction = u64;

/// A register; R0 holds results, R1–R5 arguments, R6–R9 live through calls, R10 is the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R8 = 8,
    R9,
    R10,
}

/// How much a load or store moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Byte,
    Half,
    Word,
    Double,
}

impl Size {
    fn bits(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }
}

/// When a jump is taken; comparisons are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Equal,
    NotEqual,
    Above,
    AtLeast,
    Below,
}

impl When {
    fn code(self) -> u8 {
        match self {
            Self::Equal => 0x15,
            Self::Above => 0x25,
            Self::AtLeast => 0x35,
            Self::NotEqual => 0x55,
            Self::Below => 0xa5,
        }
    }
}

/// Functions of the kernel in use, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    MapLookup = 1,
    LoadBytes = 26,
    LoadBytesRelative = 68,
    SelectReuseport = 82,
}

/// A place in the program that jumps name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Debug, Clone, Copy)]
struct Line {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    immediate: i32,
    jump: Option<Label>,
}

impl Line {
    fn encode(self, at: usize, labels: &[usize]) -> Instruction {
        let offset = self.jump.map_or(self.offset, |Label(label)| {
            let target = labels.get(label).copied().unwrap_or_default();
            let next = i64::try_from(at + 1).unwrap_or_default();
            let distance = i64::try_from(target).unwrap_or_default() - next;
            i16::try_from(distance).unwrap_or_default()
        });
        let registers = if cfg!(target_endian = "little") {
            (self.from << 4) | self.to
        } else {
            (self.to << 4) | self.from
        };
        let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), self.immediate.to_ne_bytes());
        u64::from_ne_bytes([self.code, registers, o0, o1, i0, i1, i2, i3])
    }
}

/// Writes a program line by line; jumps name labels that may still be to come.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    lines: Vec<Line>,
    labels: Vec<usize>,
}

impl Assembler {
    fn line(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> &mut Self {
        self.lines.push(Line { code, to, from, offset, immediate, jump: None });
        self
    }

    /// A label without a place yet.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub(super) fn place(&mut self, label: Label) -> &mut Self {
        let here = self.lines.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = here;
        }
        self
    }

    /// `to = from`.
    pub(super) fn copy(&mut self, to: Register, from: Register) -> &mut Self {
        self.line(0xbf, to as u8, from as u8, 0, 0)
    }

    /// `to = number`.
    pub(super) fn set(&mut self, to: Register, number: i32) -> &mut Self {
        self.line(0xb7, to as u8, 0, 0, number)
    }

    /// `to += number`, 64 bits, wrapping.
    pub(super) fn add(&mut self, to: Register, number: i32) -> &mut Self {
        self.line(0x07, to as u8, 0, 0, number)
    }

    /// `to += from`.
    pub(super) fn add_register(&mut self, to: Register, from: Register) -> &mut Self {
        self.line(0x0f, to as u8, from as u8, 0, 0)
    }

    /// `to &= number`.
    pub(super) fn and(&mut self, to: Register, number: i32) -> &mut Self {
        self.line(0x57, to as u8, 0, 0, number)
    }

    /// `to <<= bits`.
    pub(super) fn shift_left(&mut self, to: Register, bits: i32) -> &mut Self {
        self.line(0x67, to as u8, 0, 0, bits)
    }

    /// Reads the low 16 bits of `to` as they travel in networks.
    pub(super) fn read_network_16(&mut self, to: Register) -> &mut Self {
        self.line(0xdc, to as u8, 0, 0, 16)
    }

    /// `to = *(from + offset)`.
    pub(super) fn load(&mut self, size: Size, to: Register, from: (Register, i16)) -> &mut Self {
        self.line(0x61 | size.bits(), to as u8, from.0 as u8, from.1, 0)
    }

    /// `*(to + offset) = from`.
    pub(super) fn store(&mut self, size: Size, to: (Register, i16), from: Register) -> &mut Self {
        self.line(0x63 | size.bits(), to.0 as u8, from as u8, to.1, 0)
    }

    /// `*(to + offset) = number`.
    pub(super) fn store_number(
        &mut self,
        size: Size,
        to: (Register, i16),
        number: i32,
    ) -> &mut Self {
        self.line(0x62 | size.bits(), to.0 as u8, 0, to.1, number)
    }

    /// `to = map`, which must live until the program is loaded.
    pub(super) fn map<const K: usize, const V: usize>(
        &mut self,
        to: Register,
        map: &Map<K, V>,
    ) -> &mut Self {
        const PSEUDO_MAP_FD: u8 = 1;
        // One instruction in two slots.
        self.line(0x18, to as u8, PSEUDO_MAP_FD, 0, map.0.as_raw_fd()).line(0, 0, 0, 0, 0)
    }

    /// `R0 = function(R1, …)`; R1–R5 are lost.
    pub(super) fn call(&mut self, function: Call) -> &mut Self {
        self.line(0x85, 0, 0, 0, function as i32)
    }

    /// To `label`.
    pub(super) fn jump(&mut self, label: Label) -> &mut Self {
        let line = Line { code: 0x05, to: 0, from: 0, offset: 0, immediate: 0, jump: Some(label) };
        self.lines.push(line);
        self
    }

    /// To `label` when `register` compares so with `number`.
    pub(super) fn jump_if(
        &mut self,
        register: Register,
        when: When,
        number: i32,
        label: Label,
    ) -> &mut Self {
        let to = register as u8;
        let code = when.code();
        self.lines.push(Line {
            code,
            to,
            from: 0,
            offset: 0,
            immediate: number,
            jump: Some(label),
        });
        self
    }

    /// Ends the program with R0.
    pub(super) fn exit(&mut self) -> &mut Self {
        self.line(0x95, 0, 0, 0, 0)
    }

    /// The program.
    pub(super) fn finish(&self) -> Vec<Instruction> {
        let encoded = self.lines.iter().enumerate();
        encoded.map(|(at, line)| line.encode(at, &self.labels)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_laid_out_as_the_kernel_reads_them() {
        let mut asm = Assembler::default();
        let (start, end) = (asm.label(), asm.label());
        asm.place(start)
            .load(Size::Half, Register::R4, (Register::R10, -24))
            .jump_if(Register::R4, When::Equal, 6, end)
            .jump_if(Register::R4, When::Below, -1, start)
            .place(end)
            .exit();
        // Code, registers (from, to), offset, immediate.
        let expected: [(u8, u8, u8, i16, i32); 4] =
            [(0x69, 10, 4, -24, 0), (0x15, 0, 4, 1, 6), (0xa5, 0, 4, -3, -1), (0x95, 0, 0, 0, 0)];
        let line = |(code, from, to, offset, immediate)| {
            Line { code, to, from, offset, immediate, jump: None }.encode(0, &[])
        };
        assert_eq!(asm.finish(), expected.map(line));
        if cfg!(target_endian = "little") {
            assert_eq!(asm.finish()[0].to_le_bytes(), [0x69, 0xa4, 0xe8, 0xff, 0, 0, 0, 0]);
        }
    }
}

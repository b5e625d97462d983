//! The programs' stack, added up along every chain of calls. Kernels count it differently: newer
//! ones take what an older one refuses (5.10 and 6.1 round each frame up to 32 bytes), so that the
//! programs load here is no proof.

use std::collections::BTreeMap;

use netpold::datapath::PROGRAMS;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

/// Bytes for a function and all that called it (`MAX_BPF_STACK`).
const STACK: usize = 512;
/// Functions that can be under way at once (`MAX_CALL_FRAMES`).
const CALLS: usize = 8;

/// Section and address of a function.
type Place = (usize, u64);

struct Function {
    name: String,
    frame: usize,
    calls: Vec<Place>,
    /// Addresses of loads and stores on the stack that are not aligned to their size.
    misaligned: Vec<u64>,
}

/// One instruction (Documentation/bpf/standardization/instruction-set.rst).
struct Instruction {
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const FRAME_POINTER: u8 = 10;
    /// Eight bytes more, which are its constant.
    const WIDE: u8 = 0x18;

    fn at(code: &[u8], at: usize) -> Self {
        let bytes: [u8; 8] = code[at..at + 8].try_into().expect("eight bytes");
        Self {
            code: bytes[0],
            destination: bytes[1] & 0xf,
            source: bytes[1] >> 4,
            offset: i16::from_le_bytes([bytes[2], bytes[3]]),
            immediate: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }

    fn is_call(&self) -> bool {
        const CALL: u8 = 0x85;
        const OF_FUNCTION: u8 = 1;
        self.code == CALL && self.source == OF_FUNCTION
    }

    /// Does it load from the stack, or store there, by the frame pointer?
    fn accesses_stack(&self) -> bool {
        const LOAD: u8 = 1;
        const STORE: u8 = 2;
        const STORE_REGISTER: u8 = 3;
        match self.code & 7 {
            LOAD => self.source == Self::FRAME_POINTER,
            STORE | STORE_REGISTER => self.destination == Self::FRAME_POINTER,
            _ => false,
        }
    }

    /// Bytes that a load or store moves.
    fn size(&self) -> i16 {
        match self.code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }

    /// How far below the frame pointer it reaches, or an address that it makes may.
    fn reach(&self) -> usize {
        /// Adds a constant to a register, which may have been the frame pointer.
        const ADD: u8 = 0x07;
        if self.accesses_stack() {
            usize::from(self.offset.min(0).unsigned_abs())
        } else if self.code == ADD && (-(STACK as i32)..0).contains(&self.immediate) {
            self.immediate.unsigned_abs() as usize
        } else {
            0
        }
    }
}

/// Every function of the programs.
fn functions() -> BTreeMap<Place, Function> {
    let file = object::File::parse(PROGRAMS).expect("the programs are an ELF file");
    let mut functions = BTreeMap::new();
    for section in file.sections() {
        let code = section.data().expect("data of a section");
        let targets: BTreeMap<u64, RelocationTarget> = section
            .relocations()
            .map(|(at, relocation)| (at, relocation.target()))
            .collect();
        let starts = file.symbols().filter(|symbol| {
            symbol.kind() == object::SymbolKind::Text
                && symbol.section_index() == Some(section.index())
        });
        for symbol in starts {
            let (mut frame, mut calls, mut misaligned) = (0, Vec::new(), Vec::new());
            let (mut at, end) = (symbol.address(), symbol.address() + symbol.size());
            while at < end {
                let instruction = Instruction::at(code, at as usize);
                frame = frame.max(instruction.reach());
                if instruction.accesses_stack() && instruction.offset % instruction.size() != 0 {
                    misaligned.push(at);
                }
                if instruction.is_call() {
                    let next = (at as i64 + 8) + i64::from(instruction.immediate) * 8;
                    calls.push(match targets.get(&at) {
                        Some(RelocationTarget::Symbol(index)) => {
                            let called = file.symbol_by_index(*index).expect("a symbol");
                            let section = called.section_index().expect("a function of ours");
                            // Relative to a section, the constant tells how far into it.
                            let within = match called.kind() {
                                object::SymbolKind::Section => {
                                    (instruction.immediate + 1) as u64 * 8
                                }
                                _ => called.address(),
                            };
                            (section.0, within)
                        }
                        Some(other) => panic!("{other:?}"),
                        None => (section.index().0, next as u64),
                    });
                }
                at += if instruction.code == Instruction::WIDE {
                    16
                } else {
                    8
                };
            }
            let name = symbol.name().expect("a name").to_owned();
            functions.insert(
                (section.index().0, symbol.address()),
                Function {
                    name,
                    frame,
                    calls,
                    misaligned,
                },
            );
        }
    }
    functions
}

/// The chain of calls below a function that takes the most stack, with what it takes.
fn deepest(functions: &BTreeMap<Place, Function>, place: Place) -> (usize, Vec<String>) {
    let function = functions
        .get(&place)
        .unwrap_or_else(|| panic!("no function at {place:?}"));
    let frame = function.frame.max(1).next_multiple_of(32);
    let (below, mut chain) = function
        .calls
        .iter()
        .map(|called| deepest(functions, *called))
        .max()
        .unwrap_or_default();
    chain.insert(0, format!("{} {frame}", function.name));
    assert!(chain.len() <= CALLS, "{chain:?}");
    (frame + below, chain)
}

#[test]
fn every_chain_of_calls_has_room() {
    let functions = functions();
    let entry = |name: &str| {
        let found = functions.iter().find(|(_, function)| function.name == name);
        *found.unwrap_or_else(|| panic!("no {name}")).0
    };
    for program in ["netpold_egress", "netpold_ingress"] {
        let (bytes, chain) = deepest(&functions, entry(program));
        println!("{bytes} bytes: {chain:?}");
        assert!(bytes <= STACK, "{bytes} bytes of stack: {chain:?}");
        // The verdict and what it asks are functions of their own; were they not found, this sum
        // would say nothing.
        assert!(chain.len() >= 3 && bytes > 200, "{bytes} bytes: {chain:?}");
    }
}

/// The compiler may read headers in a frame wherever they lie (`allows-misaligned-mem-access`, ebpf-programs/build.rs), which
/// the verifier takes. On the stack it does not (`check_ptr_alignment`, kernel/bpf/verifier.c).
#[test]
fn every_access_to_the_stack_is_aligned() {
    for function in functions().values() {
        assert!(
            function.misaligned.is_empty(),
            "{} at {:#x?}",
            function.name,
            function.misaligned
        );
    }
}

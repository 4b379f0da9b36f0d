//! Loads, stores and atomics.

use super::Lowerer;
use super::modifiers::Modifiers;
use crate::error::ParseError;
use crate::op::{Access, AtomicOp, NONE, Op};
use crate::program::Constant;
use crate::syntax::Operand;
use crate::types::{Space, Type};

const SPACES: [(&str, Space); 9] = [
    ("global", Space::Global),
    ("const", Space::Const),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Param),
    ("param::entry", Space::Param),
    ("param::func", Space::Param),
    ("generic", Space::Generic),
];

/// Hints that change no result.
const HINTS: [&str; 16] = [
    "nc",
    "ca",
    "cg",
    "cs",
    "cv",
    "lu",
    "wb",
    "wt",
    "weak",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::64B",
    "L2::128B",
];

/// Who else must see a strong access. All blocks here are on one device, so that it makes no difference.
const SCOPES: [&str; 4] = ["cta", "cluster", "gpu", "sys"];

const ATOMICS: [(&str, AtomicOp); 10] = [
    ("add", AtomicOp::Add),
    ("min", AtomicOp::Min),
    ("max", AtomicOp::Max),
    ("and", AtomicOp::And),
    ("or", AtomicOp::Or),
    ("xor", AtomicOp::Xor),
    ("exch", AtomicOp::Exchange),
    ("cas", AtomicOp::CompareExchange),
    ("inc", AtomicOp::Increment),
    ("dec", AtomicOp::Decrement),
];

impl Lowerer<'_> {
    /// Lowers the instruction if it is one of this file's.
    pub(super) fn memory(
        &mut self,
        m: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, ParseError> {
        match m.base() {
            "ld" | "ldu" => {
                self.at_least(operands, 2)?;
                self.load_or_store(m, &operands[1], &operands[0], true)?;
            }
            "st" => {
                self.at_least(operands, 2)?;
                self.load_or_store(m, &operands[0], &operands[1], false)?;
            }
            "atom" | "red" => self.atomic(m, operands)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes away what says how strong an access is, and the hints.
    fn strength(m: &mut Modifiers<'_>) -> bool {
        for hint in HINTS.into_iter().chain(["L2::256B", "noftz"]) {
            m.take(hint);
        }
        let mut strong = false;
        for word in [
            "volatile", "relaxed", "acquire", "release", "acq_rel", "mmio",
        ] {
            strong |= m.take(word);
        }
        for scope in SCOPES {
            m.take(scope);
        }
        strong
    }

    fn access(
        &mut self,
        m: &mut Modifiers<'_>,
        address: &Operand,
    ) -> Result<(Access, Type, u32), ParseError> {
        let strong = Self::strength(m);
        let mut space = m.choose(&SPACES).unwrap_or(Space::Generic);
        let count = m.choose(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
        let ty = m.expect_ty(self.line)?;
        let Operand::Address { base, offset } = address else {
            return self.error("expected an address".to_owned());
        };
        let mut offset = *offset;
        let row = match base {
            None => self.constant(Constant::Value(0)),
            Some(name) => match self.find_address(name, 0)? {
                Some((Constant::Value(place), found)) => {
                    // The parameters of a function and of a call are in local memory, those of an entry are not.
                    space = found;
                    offset = offset.wrapping_add_unsigned(place);
                    self.constant(Constant::Value(0))
                }
                Some((constant, _)) => self.constant(constant),
                None => self.register(name)?.index,
            },
        };
        let access = Access {
            space,
            bytes: ty.bytes(),
            count,
            signed: ty.signed(),
            strong,
            offset,
            list: NONE,
        };
        self.note_granule(access);
        Ok((access, ty, row))
    }

    /// Remembers the smallest access to each memory.
    fn note_granule(&mut self, access: Access) {
        let program = &mut self.program;
        if matches!(access.space, Space::Shared | Space::Generic) {
            program.shared_granule = program.shared_granule.min(access.bytes);
        }
        if matches!(access.space, Space::Global | Space::Generic) {
            program.global_granule = program.global_granule.min(access.bytes);
        }
    }

    fn load_or_store(
        &mut self,
        m: &mut Modifiers<'_>,
        address: &Operand,
        values: &Operand,
        load: bool,
    ) -> Result<(), ParseError> {
        let (mut access, ty, row) = self.access(m, address)?;
        let single = std::slice::from_ref(values);
        let values = match values {
            Operand::Vector(values) => values.as_slice(),
            _ => single,
        };
        if values.len() != usize::from(access.count) {
            let (count, got) = (access.count, values.len());
            return self.error(format!("expected {count} registers, got {got}"));
        }
        let mut rows = Vec::new();
        for value in values {
            match value {
                Operand::Name(name) if load && name == "_" => rows.extend([NONE, 64]),
                _ if load => {
                    let register = self.destination(value)?;
                    rows.extend([register.index, u32::from(register.ty.bits())]);
                }
                _ => rows.extend([self.value(value, ty)?, 64]),
            }
        }
        access.list = self.list(&rows);
        let op = if load {
            Op::Load(access)
        } else {
            Op::Store(access)
        };
        let mut inst = self.inst(op);
        inst.a = row;
        self.program.code.push(inst);
        Ok(())
    }

    fn atomic(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        let op = m.choose(&ATOMICS);
        let Some(op) = op else {
            return self.error(format!("`{}` has no operation", m.opcode()));
        };
        let result = m.base() == "atom";
        let wanted = 2 + usize::from(result) + usize::from(op == AtomicOp::CompareExchange);
        if operands.len() != wanted {
            let got = operands.len();
            return self.error(format!("expected {wanted} operands, got {got}"));
        }
        let (d, rest) = if result {
            (Some(&operands[0]), &operands[1..])
        } else {
            (None, operands)
        };
        let (access, ty, row) = self.access(m, &rest[0])?;
        let fits = match ty {
            Type::B8 | Type::U8 | Type::S8 | Type::Pred => false,
            _ if ty.float() => op == AtomicOp::Add,
            _ => ty.bits() >= 32 || op == AtomicOp::CompareExchange,
        };
        let shared = matches!(access.space, Space::Local | Space::Param | Space::Const);
        if !fits || access.count != 1 || shared {
            return self.error(format!("`{}` is not supported", m.opcode()));
        }
        let access = Access {
            strong: true,
            ..access
        };
        let mut inst = self.inst(Op::Atomic(op, ty, access));
        if let Some(d) = d {
            inst.d = self.destination(d)?.index;
        }
        inst.a = row;
        inst.b = self.value(&rest[1], ty)?;
        if op == AtomicOp::CompareExchange {
            inst.c = self.value(&rest[2], ty)?;
        }
        self.program.code.push(inst);
        Ok(())
    }
}

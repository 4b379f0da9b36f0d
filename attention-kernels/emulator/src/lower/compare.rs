//! Comparisons, selections and moves.

use super::Lowerer;
use super::modifiers::Modifiers;
use crate::error::ParseError;
use crate::op::{Combine, Compare, CompareType, FloatTest, Inst, Int, IntOp, LogicOp, Op, Pieces};
use crate::program::Constant;
use crate::syntax::Operand;
use crate::types::{Space, Type};

const COMPARISONS: [(&str, Compare); 18] = [
    ("equ", Compare::Equ),
    ("neu", Compare::Neu),
    ("ltu", Compare::Ltu),
    ("leu", Compare::Leu),
    ("gtu", Compare::Gtu),
    ("geu", Compare::Geu),
    ("eq", Compare::Eq),
    ("ne", Compare::Ne),
    ("lt", Compare::Lt),
    ("le", Compare::Le),
    ("gt", Compare::Gt),
    ("ge", Compare::Ge),
    // Of unsigned integers.
    ("lo", Compare::Lt),
    ("ls", Compare::Le),
    ("hi", Compare::Gt),
    ("hs", Compare::Ge),
    ("num", Compare::Num),
    ("nan", Compare::Nan),
];

const TESTS: [(&str, FloatTest); 6] = [
    ("finite", FloatTest::Finite),
    ("infinite", FloatTest::Infinite),
    ("number", FloatTest::Number),
    ("notanumber", FloatTest::NotANumber),
    ("normal", FloatTest::Normal),
    ("subnormal", FloatTest::Subnormal),
];

const SPACES: [(&str, Space); 6] = [
    ("global", Space::Global),
    ("const", Space::Const),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Param),
];

impl Lowerer<'_> {
    /// Lowers the instruction if it is one of this file's.
    pub(super) fn comparing(
        &mut self,
        m: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, ParseError> {
        match m.base() {
            "setp" => self.setp(m, operands)?,
            "set" => self.set(m, operands)?,
            "selp" | "slct" => self.select(m, operands)?,
            "testp" => {
                let test = m.choose(&TESTS);
                let ty = m.expect_ty(self.line)?;
                let Some(test) = test else {
                    return self.error("`testp` has no test".to_owned());
                };
                self.test(Op::TestFloat(test, ty), operands, ty)?;
            }
            "isspacep" => match m.choose(&SPACES) {
                Some(space) => self.test(Op::IsSpace(space), operands, Type::U64)?,
                None => return self.error("`isspacep` has no space".to_owned()),
            },
            "mov" => self.mov(m, operands)?,
            "cvta" => self.cvta(m, operands)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn at_least(&self, operands: &[Operand], count: usize) -> Result<(), ParseError> {
        if operands.len() < count {
            let got = operands.len();
            return self.error(format!("expected {count} operands at least, got {got}"));
        }
        Ok(())
    }

    fn comparison(&mut self, m: &mut Modifiers<'_>) -> Result<(Compare, Combine), ParseError> {
        let combines = [
            ("and", Combine::And),
            ("or", Combine::Or),
            ("xor", Combine::Xor),
        ];
        let combine = m.choose(&combines).unwrap_or(Combine::Alone);
        match m.choose(&COMPARISONS) {
            Some(compare) => Ok((compare, combine)),
            None => self.error(format!("`{}` has no comparison", m.opcode())),
        }
    }

    fn compare_type(&self, m: &mut Modifiers<'_>) -> Result<CompareType, ParseError> {
        let ftz = m.take("ftz");
        let ty = m.expect_ty(self.line)?;
        if matches!(ty, Type::F16x2 | Type::Bf16x2 | Type::Pred) {
            return self.error(format!("comparisons of {ty} are not supported"));
        }
        Ok(CompareType { ty, ftz })
    }

    /// Sources of a comparison, and the predicate that it joins.
    fn compared(
        &mut self,
        inst: &mut Inst,
        ty: Type,
        combine: Combine,
        operands: &[Operand],
    ) -> Result<(), ParseError> {
        self.at_least(operands, if combine == Combine::Alone { 3 } else { 4 })?;
        inst.a = self.value(&operands[1], ty)?;
        inst.b = self.value(&operands[2], ty)?;
        if combine != Combine::Alone {
            inst.p = self.predicate(&operands[3])?;
        }
        Ok(())
    }

    fn setp(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        let (compare, combine) = self.comparison(m)?;
        let ty = self.compare_type(m)?;
        let mut inst = self.inst(Op::Setp(compare, combine, ty));
        self.compared(&mut inst, ty.ty, combine, operands)?;
        match &operands[0] {
            Operand::Name(p) => inst.d = self.predicate_register(p)?,
            Operand::Pair(p, q) => {
                inst.d = self.sink(p)?;
                inst.e = self.sink(q)?;
            }
            _ => return self.error("expected a predicate".to_owned()),
        }
        self.program.code.push(inst);
        Ok(())
    }

    /// A predicate that is written, or `_`.
    pub(super) fn sink(&mut self, name: &str) -> Result<u32, ParseError> {
        if name == "_" {
            self.program.predicates += 1;
            return Ok(self.program.predicates - 1);
        }
        self.predicate_register(name)
    }

    fn set(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        let (compare, combine) = self.comparison(m)?;
        let ftz = m.take("ftz");
        let to = m.expect_ty(self.line)?;
        let ty = CompareType {
            ftz,
            ..self.compare_type(m)?
        };
        let mut inst = self.inst(Op::Set(compare, combine, ty, to));
        self.compared(&mut inst, ty.ty, combine, operands)?;
        inst.d = self.destination(&operands[0])?.index;
        self.program.code.push(inst);
        Ok(())
    }

    fn select(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        self.at_least(operands, 4)?;
        let _ = m.take("ftz");
        let ty = m.expect_ty(self.line)?;
        let mut inst = self.inst(Op::Select);
        inst.d = self.destination(&operands[0])?.index;
        inst.a = self.value(&operands[1], ty)?;
        inst.b = self.value(&operands[2], ty)?;
        if m.base() == "slct" {
            let sign = m.expect_ty(self.line)?;
            inst.op = Op::SelectSign(sign);
            inst.c = self.value(&operands[3], sign)?;
        } else {
            inst.p = self.predicate(&operands[3])?;
        }
        self.program.code.push(inst);
        Ok(())
    }

    /// `p, a`.
    fn test(&mut self, op: Op, operands: &[Operand], ty: Type) -> Result<(), ParseError> {
        self.at_least(operands, 2)?;
        let Operand::Name(p) = &operands[0] else {
            return self.error("expected a predicate".to_owned());
        };
        let mut inst = self.inst(op);
        inst.d = self.predicate_register(p)?;
        inst.a = self.value(&operands[1], ty)?;
        self.program.code.push(inst);
        Ok(())
    }

    fn mov(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        self.at_least(operands, 2)?;
        let ty = m.expect_ty(self.line)?;
        if ty == Type::Pred {
            return self.predicates(LogicOp::Mov, operands);
        }
        match (&operands[0], &operands[1]) {
            (Operand::Vector(pieces), source) => {
                let row = self.value(source, ty)?;
                let pieces = self.pieces(pieces, ty, true)?;
                let mut inst = self.inst(Op::Unpack(pieces));
                inst.a = row;
                self.program.code.push(inst);
            }
            (d, Operand::Vector(pieces)) => {
                let d = self.destination(d)?.index;
                let pieces = self.pieces(pieces, ty, false)?;
                let mut inst = self.inst(Op::Pack(pieces));
                inst.d = d;
                self.program.code.push(inst);
            }
            (d, source) => {
                let mut inst = self.inst(Op::Mov);
                inst.d = self.destination(d)?.index;
                inst.a = self.value(source, ty)?;
                self.program.code.push(inst);
            }
        }
        Ok(())
    }

    fn pieces(
        &mut self,
        operands: &[Operand],
        ty: Type,
        written: bool,
    ) -> Result<Pieces, ParseError> {
        let count = u8::try_from(operands.len()).unwrap_or(u8::MAX);
        if !matches!(count, 2 | 4 | 8) || ty.bits() / count < 8 {
            return self.error(format!("{ty} does not hold {count} pieces"));
        }
        let bits = ty.bits() / count;
        let piece = match bits {
            8 => Type::B8,
            16 => Type::B16,
            _ => Type::B32,
        };
        let mut rows = Vec::new();
        for operand in operands {
            rows.push(if written {
                self.destination(operand)?.index
            } else {
                self.value(operand, piece)?
            });
        }
        let list = self.list(&rows);
        Ok(Pieces { list, count, bits })
    }

    pub(super) fn list(&mut self, rows: &[u32]) -> u32 {
        let list = u32::try_from(self.program.lists.len()).expect("fewer operands than 2^32");
        self.program.lists.extend(rows);
        list
    }

    /// Between an address of a space and a generic one.
    fn cvta(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        self.at_least(operands, 2)?;
        let to_space = m.take("to");
        let Some(space) = m.choose(&SPACES) else {
            return self.error(format!("`{}` has no space", m.opcode()));
        };
        m.expect_ty(self.line)?;
        let op = if to_space { IntOp::Sub } else { IntOp::Add };
        let int = Int {
            bits: 64,
            signed: false,
        };
        let mut inst = self.inst(Op::Int(op, int));
        inst.d = self.destination(&operands[0])?.index;
        inst.a = self.value(&operands[1], Type::U64)?;
        inst.b = self.constant(Constant::Value(Self::window(space)));
        self.program.code.push(inst);
        Ok(())
    }
}

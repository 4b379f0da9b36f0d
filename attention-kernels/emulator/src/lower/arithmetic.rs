//! Arithmetic, bits and conversions.

use super::Lowerer;
use super::modifiers::Modifiers;
use crate::error::ParseError;
use crate::op::{Convert, FloatMode, FloatOp, Int, IntOp, LogicOp, Op, PermuteMode, Rounding};
use crate::syntax::{Number, Operand};
use crate::types::Type;

impl Lowerer<'_> {
    /// Lowers the instruction if it is one of this file's.
    pub(super) fn arithmetic(
        &mut self,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, ParseError> {
        match modifiers.base() {
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "abs" | "neg" | "min"
            | "max" | "sad" | "mul24" | "mad24" => self.common(modifiers, operands)?,
            "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "copysign" => {
                self.float_only(modifiers, operands)?;
            }
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" => {
                self.bitwise(modifiers, operands)?;
            }
            "shf" | "lop3" | "bfe" | "bfi" | "prmt" | "popc" | "clz" | "brev" | "bfind" => {
                self.bits(modifiers, operands)?;
            }
            "cvt" => self.convert(modifiers, operands)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `d, a, b, c` of one type, as many as there are.
    fn uniform(
        &mut self,
        op: Op,
        operands: &[Operand],
        types: [Type; 3],
    ) -> Result<(), ParseError> {
        let mut inst = self.inst(op);
        let [d, sources @ ..] = operands else {
            return self.error("expected a register".to_owned());
        };
        inst.d = self.destination(d)?.index;
        if sources.len() > 3 {
            return self.error(format!("{} operands are too many", operands.len()));
        }
        let mut rows = [inst.a; 3];
        for ((row, source), ty) in rows.iter_mut().zip(sources).zip(types) {
            *row = self.value(source, ty)?;
        }
        [inst.a, inst.b, inst.c] = rows;
        self.program.code.push(inst);
        Ok(())
    }

    fn expect_operands(&self, operands: &[Operand], expected: usize) -> Result<(), ParseError> {
        if operands.len() == expected {
            Ok(())
        } else {
            let got = operands.len();
            self.error(format!("expected {expected} operands, got {got}"))
        }
    }

    fn common(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        let sources = match m.base() {
            "abs" | "neg" => 1,
            "mad" | "fma" | "sad" | "mad24" => 3,
            _ => 2,
        };
        self.expect_operands(operands, sources + 1)?;
        let part = m.choose(&[("lo", Part::Low), ("hi", Part::High), ("wide", Part::Wide)]);
        let ty = m.expect_ty(self.line)?;
        if ty.float() {
            return self.float_common(m, operands, ty);
        }
        let int = self.int(ty)?;
        let part = part.unwrap_or(Part::Low);
        let op = match (m.base(), part) {
            ("add", _) if m.take("sat") => IntOp::AddSat,
            ("sub", _) if m.take("sat") => IntOp::SubSat,
            ("add", _) => IntOp::Add,
            ("sub", _) => IntOp::Sub,
            ("mul", Part::Low) => IntOp::MulLow,
            ("mul", Part::High) => IntOp::MulHigh,
            ("mul", Part::Wide) => IntOp::MulWide,
            ("mad", Part::Low) => IntOp::MadLow,
            ("mad", Part::High) => IntOp::MadHigh,
            ("mad", Part::Wide) => IntOp::MadWide,
            ("mul24", Part::Low) => IntOp::Mul24Low,
            ("mul24", Part::High) => IntOp::Mul24High,
            ("mad24", Part::Low) => IntOp::Mad24Low,
            ("sad", _) => IntOp::Sad,
            ("div", _) => IntOp::Div,
            ("rem", _) => IntOp::Rem,
            ("min", _) => IntOp::Min,
            ("max", _) => IntOp::Max,
            ("neg", _) => IntOp::Neg,
            ("abs", _) => IntOp::Abs,
            _ => return self.error(format!("unknown opcode `{}`", m.opcode())),
        };
        let wide = match (part, ty) {
            (Part::Wide, Type::U16) => Type::U32,
            (Part::Wide, Type::S16) => Type::S32,
            (Part::Wide, Type::U32) => Type::U64,
            (Part::Wide, Type::S32) => Type::S64,
            (Part::Wide, _) => return self.error(format!("no wide product of {ty}")),
            _ => ty,
        };
        self.uniform(Op::Int(op, int), operands, [ty, ty, wide])
    }

    fn float_common(
        &mut self,
        m: &mut Modifiers<'_>,
        operands: &[Operand],
        ty: Type,
    ) -> Result<(), ParseError> {
        let mode = m.float_mode();
        // Division is exact, whatever it may be.
        let _ = m.take("approx") || m.take("full") || m.take("noftz");
        let op = match m.base() {
            "add" => FloatOp::Add,
            "sub" => FloatOp::Sub,
            "mul" => FloatOp::Mul,
            "fma" | "mad" => FloatOp::Fma,
            "div" => FloatOp::Div,
            "abs" => FloatOp::Abs,
            "neg" => FloatOp::Neg,
            "min" => FloatOp::Min { nan: m.take("NaN") },
            "max" => FloatOp::Max { nan: m.take("NaN") },
            _ => return self.error(format!("unknown opcode `{}`", m.opcode())),
        };
        self.float(op, ty, mode, m, operands)
    }

    fn float(
        &mut self,
        op: FloatOp,
        ty: Type,
        mode: FloatMode,
        m: &Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), ParseError> {
        let directed = mode.rounding != Rounding::Nearest;
        let half = !matches!(ty, Type::F32 | Type::F64);
        let transcendental = !matches!(
            op,
            FloatOp::Add | FloatOp::Sub | FloatOp::Mul | FloatOp::Fma
        );
        let unsupported = (directed && (ty != Type::F32 || transcendental))
            || (half
                && matches!(
                    op,
                    FloatOp::Div | FloatOp::Rcp | FloatOp::Sqrt | FloatOp::Rsqrt
                ))
            || (mode.sat && ty == Type::F64);
        if unsupported {
            return self.error(format!("`{}` is not supported", m.opcode()));
        }
        self.uniform(Op::Float(op, ty, mode), operands, [ty; 3])
    }

    fn float_only(
        &mut self,
        m: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), ParseError> {
        let (op, sources) = match m.base() {
            "rcp" => (FloatOp::Rcp, 1),
            "sqrt" => (FloatOp::Sqrt, 1),
            "rsqrt" => (FloatOp::Rsqrt, 1),
            "ex2" => (FloatOp::Ex2, 1),
            "lg2" => (FloatOp::Lg2, 1),
            "sin" => (FloatOp::Sin, 1),
            "cos" => (FloatOp::Cos, 1),
            "tanh" => (FloatOp::Tanh, 1),
            _ => (FloatOp::CopySign, 2),
        };
        self.expect_operands(operands, sources + 1)?;
        let mode = m.float_mode();
        m.take("approx");
        let ty = m.expect_ty(self.line)?;
        if !ty.float() {
            return self.error(format!("`{}` is of floats, not {ty}", m.opcode()));
        }
        if op == FloatOp::CopySign {
            // The sign is the first source's, the rest the second's.
            let swapped = [&operands[0], &operands[2], &operands[1]].map(Clone::clone);
            return self.float(op, ty, mode, m, &swapped);
        }
        self.float(op, ty, mode, m, operands)
    }

    fn int(&self, ty: Type) -> Result<Int, ParseError> {
        if ty == Type::Pred || ty.float() {
            return self.error(format!("{ty} is no integer"));
        }
        Ok(Int {
            bits: ty.bits(),
            signed: ty.signed(),
        })
    }

    fn bitwise(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        let ty = m.expect_ty(self.line)?;
        let sources = if matches!(m.base(), "not" | "cnot") {
            1
        } else {
            2
        };
        self.expect_operands(operands, sources + 1)?;
        if ty == Type::Pred {
            return self.logic(m, operands);
        }
        let op = match m.base() {
            "and" => IntOp::And,
            "or" => IntOp::Or,
            "xor" => IntOp::Xor,
            "not" => IntOp::Not,
            "cnot" => IntOp::Cnot,
            "shl" => IntOp::Shl,
            _ => IntOp::Shr,
        };
        let second = if matches!(op, IntOp::Shl | IntOp::Shr) {
            Type::U32
        } else {
            ty
        };
        let int = self.int(ty)?;
        self.uniform(Op::Int(op, int), operands, [ty, second, ty])
    }

    fn logic(&mut self, m: &Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        let op = match m.base() {
            "and" => LogicOp::And,
            "or" => LogicOp::Or,
            "xor" => LogicOp::Xor,
            "not" => LogicOp::Not,
            _ => return self.error(format!("`{}` of predicates", m.base())),
        };
        self.predicates(op, operands)
    }

    /// `d, p, q`.
    pub(super) fn predicates(
        &mut self,
        op: LogicOp,
        operands: &[Operand],
    ) -> Result<(), ParseError> {
        let mut inst = self.inst(Op::Logic(op));
        let Operand::Name(d) = &operands[0] else {
            return self.error("expected a predicate".to_owned());
        };
        inst.d = self.predicate_register(d)?;
        inst.p = self.predicate(&operands[1])?;
        if let Some(second) = operands.get(2) {
            let second = self.predicate(second)?;
            inst.b = second.index;
            if second.negated {
                return self.error("the second predicate is negated".to_owned());
            }
        }
        self.program.code.push(inst);
        Ok(())
    }

    fn bits(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        let clamp = m
            .choose(&[("clamp", true), ("wrap", false)])
            .unwrap_or(false);
        let shift = m.take("shiftamt");
        let left = m.choose(&[("l", true), ("r", false)]);
        let permute = m.choose(&[
            ("f4e", PermuteMode::Forward4),
            ("b4e", PermuteMode::Backward4),
            ("rc8", PermuteMode::Replicate8),
            ("ecl", PermuteMode::EdgeLeft),
            ("ecr", PermuteMode::EdgeRight),
            ("rc16", PermuteMode::Replicate16),
        ]);
        let ty = m.expect_ty(self.line)?;
        let int = self.int(ty)?;
        let mut fourth = None;
        let (op, sources) = match (m.base(), left) {
            ("shf", Some(true)) => (IntOp::FunnelLeft { clamp }, 3),
            ("shf", Some(false)) => (IntOp::FunnelRight { clamp }, 3),
            ("lop3", _) => {
                self.expect_operands(operands, 5)?;
                let table = match operands[4] {
                    Operand::Number(Number::Integer(value)) => u8::try_from(value).ok(),
                    _ => None,
                };
                let Some(table) = table else {
                    return self.error("lop3 needs a table of 8 bits".to_owned());
                };
                (IntOp::Lop3(table), 4)
            }
            ("bfe", _) => (IntOp::BitfieldExtract, 3),
            ("bfi", _) => (IntOp::BitfieldInsert, 4),
            ("prmt", _) => (IntOp::Permute(permute.unwrap_or(PermuteMode::Index)), 3),
            ("popc", _) => (IntOp::PopCount, 1),
            ("clz", _) => (IntOp::LeadingZeros, 1),
            ("brev", _) => (IntOp::BitReverse, 1),
            ("bfind", _) => (IntOp::BitFind { shift }, 1),
            _ => return self.error(format!("unknown opcode `{}`", m.opcode())),
        };
        self.expect_operands(operands, sources + 1)?;
        let types = match op {
            IntOp::BitfieldExtract => [ty, Type::U32, Type::U32],
            IntOp::BitfieldInsert => {
                fourth = Some(self.value(&operands[4], Type::U32)?);
                [ty, ty, Type::U32]
            }
            _ => [ty; 3],
        };
        let count = operands.len().min(4);
        self.uniform(Op::Int(op, int), &operands[..count], types)?;
        if let (Some(row), Some(inst)) = (fourth, self.program.code.last_mut()) {
            inst.m = row;
        }
        Ok(())
    }

    fn convert(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        let integral = m.choose(&[
            ("rni", Rounding::Nearest),
            ("rzi", Rounding::Zero),
            ("rmi", Rounding::Down),
            ("rpi", Rounding::Up),
        ]);
        let mut mode = m.float_mode();
        let to = m.expect_ty(self.line)?;
        let from = m.expect_ty(self.line)?;
        mode.rounding = integral.unwrap_or(mode.rounding);
        let convert = Convert {
            to,
            from,
            mode,
            integral: integral.is_some(),
        };
        let packed = matches!(to, Type::F16x2 | Type::Bf16x2);
        let unsupported = to == Type::Pred
            || from == Type::Pred
            || matches!(from, Type::F16x2 | Type::Bf16x2)
            || (packed && from != Type::F32);
        if unsupported {
            return self.error(format!("`{}` is not supported", m.opcode()));
        }
        if packed {
            self.expect_operands(operands, 3)?;
            return self.uniform(Op::ConvertPair(convert), operands, [from; 3]);
        }
        self.expect_operands(operands, 2)?;
        let register = self.destination(&operands[0])?;
        self.uniform(Op::Convert(convert), operands, [from; 3])?;
        // A signed result fills a wider register with its sign.
        if to.signed() && register.ty.bits() > to.bits() {
            let wider = match register.ty.bits() {
                64 => Type::S64,
                32 => Type::S32,
                _ => Type::S16,
            };
            let mut inst = self.inst(Op::Convert(Convert {
                to: wider,
                from: to,
                mode: FloatMode::PLAIN,
                integral: false,
            }));
            inst.d = register.index;
            inst.a = register.index;
            self.program.code.push(inst);
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Part {
    Low,
    High,
    Wide,
}

//! Jumps, calls, barriers and what a warp does together.

use super::modifiers::Modifiers;
use super::{Call, Frame, Jump, Lowerer};
use crate::error::ParseError;
use crate::op::{AtomicOp, BarrierKind, NONE, Op, Shuffle, Vote, WarpOp};
use crate::program::Constant;
use crate::syntax::{Operand, Variable};
use crate::types::Type;

impl<'a> Lowerer<'a> {
    /// Lowers the instruction if it is one of this file's.
    pub(super) fn control(
        &mut self,
        m: &mut Modifiers<'_>,
        operands: &'a [Operand],
    ) -> Result<bool, ParseError> {
        match m.base() {
            "bra" => {
                m.take("uni");
                let label = self.only_name(operands)?;
                let jump = self.jump(label);
                self.jumps.push(jump);
                self.simple(Op::Nop);
            }
            "brx" => self.branch_index(m, operands)?,
            "call" => {
                m.take("uni");
                self.call(operands)?;
            }
            "ret" => {
                m.take("uni");
                self.end_of_function();
            }
            "exit" => self.simple(Op::Exit),
            "trap" => self.simple(Op::Trap),
            "membar" | "fence" => {
                for word in [
                    "sc", "acq_rel", "acquire", "release", "cta", "gl", "gpu", "sys", "cluster",
                ] {
                    m.take(word);
                }
                self.program.fences = true;
                self.simple(Op::Fence);
            }
            "nanosleep" | "prefetch" | "prefetchu" | "brkpt" => {
                for word in [
                    "u32",
                    "global",
                    "local",
                    "L1",
                    "L2",
                    "L2::evict_last",
                    "L2::evict_normal",
                ] {
                    m.take(word);
                }
                self.simple(Op::Nop);
            }
            "bar" | "barrier" => self.barrier(m, operands)?,
            "shfl" => self.shuffle(m, operands)?,
            "vote" => self.vote(m, operands)?,
            "match" => self.matching(m, operands)?,
            "redux" => self.redux(m, operands)?,
            "activemask" => {
                self.at_least(operands, 1)?;
                m.expect_ty(self.line)?;
                let mut inst = self.inst(Op::ActiveMask);
                inst.d = self.destination(&operands[0])?.index;
                self.program.code.push(inst);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn simple(&mut self, op: Op) {
        let inst = self.inst(op);
        self.program.code.push(inst);
    }

    fn only_name(&self, operands: &'a [Operand]) -> Result<&'a str, ParseError> {
        match operands {
            [Operand::Name(name)] => Ok(name),
            _ => self.error("expected a name".to_owned()),
        }
    }

    fn jump(&self, label: &str) -> Jump {
        Jump {
            at: self.program.code.len(),
            label: label.to_owned(),
            scopes: self.names.open_scopes(),
            line: self.line,
        }
    }

    fn branch_index(
        &mut self,
        m: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), ParseError> {
        m.take("idx");
        m.take("uni");
        let [index, Operand::Name(targets)] = operands else {
            return self.error("expected a register and a list of labels".to_owned());
        };
        let Some(labels) = self.names.find_targets(targets).cloned() else {
            return self.error(format!("there is no list of labels `{targets}`"));
        };
        let list = self.list(&vec![NONE; labels.len()]);
        for (at, label) in labels.iter().enumerate() {
            let jump = self.jump(label);
            self.targets.push((list as usize + at, jump));
        }
        let count = u32::try_from(labels.len()).unwrap_or(u32::MAX);
        let mut inst = self.inst(Op::BranchIndex { list, count });
        inst.a = self.value(index, Type::U32)?;
        self.program.code.push(inst);
        Ok(())
    }

    /// `(returned), function, (arguments)`, each list optional.
    fn call(&mut self, operands: &'a [Operand]) -> Result<(), ParseError> {
        let (returned, rest) = match operands {
            [Operand::List(returned), rest @ ..] => (returned.as_slice(), rest),
            _ => (&[][..], operands),
        };
        let (name, arguments) = match rest {
            [Operand::Name(name)] => (name, &[][..]),
            [Operand::Name(name), Operand::List(arguments)] => (name, arguments.as_slice()),
            _ => return self.error("calls through a pointer are not supported".to_owned()),
        };
        let source = self.source;
        let Some(function) = source.functions.iter().find(|f| f.name == *name) else {
            return self.error(format!("there is no function `{name}`"));
        };
        if function.body.is_none() || function.entry {
            return match name.as_str() {
                "__assertfail" => {
                    self.simple(Op::AssertFail);
                    Ok(())
                }
                _ => self.error(format!("function `{name}` has no body")),
            };
        }
        self.frame(function)?;
        self.edges.push((self.current.clone(), name.clone()));
        self.queue.push(function);
        let frame = &self.frames[name];
        let (link, params, returns) = (frame.link, frame.params.clone(), frame.returns.clone());
        if params.len() != arguments.len() || returns.len() != returned.len() {
            return self.error(format!(
                "a call of `{name}` with other parameters than it has"
            ));
        }
        for (argument, (to, bytes)) in arguments.iter().zip(params) {
            let from = self.argument(argument)?;
            self.simple(Op::Copy { from, to, bytes });
        }
        let call = Call {
            at: self.program.code.len(),
            target: name.clone(),
        };
        self.calls.push(call);
        self.simple(Op::Call { target: NONE, link });
        for (result, (from, bytes)) in returned.iter().zip(returns) {
            let to = self.argument(result)?;
            self.simple(Op::Copy { from, to, bytes });
        }
        Ok(())
    }

    /// Where an argument lies in local memory.
    fn argument(&mut self, operand: &Operand) -> Result<u32, ParseError> {
        if let Operand::Name(name) = operand
            && let Some((Constant::Value(place), crate::types::Space::Local)) =
                self.find_address(name, 0)?
        {
            return Ok(u32::try_from(place).expect("below the limit of local memory"));
        }
        self.error("an argument of a call is no `.param` variable".to_owned())
    }

    fn frame(&mut self, function: &'a crate::syntax::Function) -> Result<(), ParseError> {
        if self.frames.contains_key(&function.name) {
            return Ok(());
        }
        let mut places = |variables: &[Variable]| -> Result<Vec<(u32, u32)>, ParseError> {
            let place = |variable| {
                let offset = self.place_local(variable)?;
                let bytes = u32::try_from(variable.bytes.unwrap_or(0)).unwrap_or(u32::MAX);
                Ok((offset, bytes))
            };
            variables.iter().map(place).collect()
        };
        let params = places(&function.params)?;
        let returns = places(&function.returns)?;
        let link = self.new_row();
        let frame = Frame {
            params,
            returns,
            link,
        };
        self.frames.insert(function.name.clone(), frame);
        Ok(())
    }

    fn barrier(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        m.take("cta");
        let aligned = m.take("aligned") || m.base() == "bar";
        if m.take("warp") {
            m.take("sync");
            self.at_least(operands, 1)?;
            let mut inst = self.inst(Op::Warp(WarpOp::Sync));
            inst.m = self.value(&operands[0], Type::U32)?;
            self.program.code.push(inst);
            return Ok(());
        }
        let kind = if m.take("red") {
            let kinds = [
                ("popc", BarrierKind::Count),
                ("and", BarrierKind::All),
                ("or", BarrierKind::Any),
            ];
            m.choose(&kinds)
        } else {
            m.choose(&[("sync", BarrierKind::Sync), ("arrive", BarrierKind::Arrive)])
        };
        let Some(kind) = kind else {
            return self.error(format!("`{}` is not supported", m.opcode()));
        };
        let mut inst = self.inst(Op::Barrier { aligned, kind });
        let mut operands = operands;
        if !matches!(kind, BarrierKind::Sync | BarrierKind::Arrive) {
            m.expect_ty(self.line)?;
            self.at_least(operands, 3)?;
            inst.d = match &operands[0] {
                Operand::Name(p) if kind != BarrierKind::Count => self.predicate_register(p)?,
                d => self.destination(d)?.index,
            };
            inst.p = self.predicate(&operands[operands.len() - 1])?;
            operands = &operands[1..operands.len() - 1];
        }
        let Some(id) = operands.first() else {
            return self.error("a barrier without its number".to_owned());
        };
        inst.a = self.value(id, Type::U32)?;
        if let Some(count) = operands.get(1) {
            inst.b = self.value(count, Type::U32)?;
        }
        self.program.code.push(inst);
        Ok(())
    }

    fn sync(&self, m: &mut Modifiers<'_>) -> Result<(), ParseError> {
        if m.take("sync") {
            Ok(())
        } else {
            self.error(format!("`{}` without `.sync` is not supported", m.opcode()))
        }
    }

    fn shuffle(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        self.sync(m)?;
        self.at_least(operands, 5)?;
        let modes = [
            ("up", Shuffle::Up),
            ("down", Shuffle::Down),
            ("bfly", Shuffle::Butterfly),
            ("idx", Shuffle::Index),
        ];
        let Some(mode) = m.choose(&modes) else {
            return self.error(format!("`{}` has no mode", m.opcode()));
        };
        m.expect_ty(self.line)?;
        let mut inst = self.inst(Op::Warp(WarpOp::Shuffle(mode)));
        match &operands[0] {
            Operand::Pair(d, p) => {
                inst.d = self.destination(&Operand::Name(d.clone()))?.index;
                inst.e = self.sink(p)?;
            }
            d => inst.d = self.destination(d)?.index,
        }
        inst.a = self.value(&operands[1], Type::B32)?;
        inst.b = self.value(&operands[2], Type::B32)?;
        inst.c = self.value(&operands[3], Type::B32)?;
        inst.m = self.value(&operands[4], Type::B32)?;
        self.program.code.push(inst);
        Ok(())
    }

    fn vote(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        self.sync(m)?;
        self.at_least(operands, 3)?;
        let kinds = [
            ("all", Vote::All),
            ("any", Vote::Any),
            ("uni", Vote::Uniform),
            ("ballot", Vote::Ballot),
        ];
        let Some(kind) = m.choose(&kinds) else {
            return self.error(format!("`{}` has no kind", m.opcode()));
        };
        m.expect_ty(self.line)?;
        let mut inst = self.inst(Op::Warp(WarpOp::Vote(kind)));
        inst.d = match (&operands[0], kind) {
            (d, Vote::Ballot) => self.destination(d)?.index,
            (Operand::Name(p), _) => self.predicate_register(p)?,
            _ => return self.error("expected a predicate".to_owned()),
        };
        inst.p = self.predicate(&operands[1])?;
        inst.m = self.value(&operands[2], Type::B32)?;
        self.program.code.push(inst);
        Ok(())
    }

    fn matching(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        self.sync(m)?;
        self.at_least(operands, 3)?;
        let all = m.choose(&[("all", true), ("any", false)]).unwrap_or(false);
        let ty = m.expect_ty(self.line)?;
        let bits = ty.bits();
        let op = if all {
            WarpOp::MatchAll { bits }
        } else {
            WarpOp::MatchAny { bits }
        };
        let mut inst = self.inst(Op::Warp(op));
        match &operands[0] {
            Operand::Pair(d, p) => {
                inst.d = self.destination(&Operand::Name(d.clone()))?.index;
                inst.e = self.sink(p)?;
            }
            d => inst.d = self.destination(d)?.index,
        }
        inst.a = self.value(&operands[1], ty)?;
        inst.m = self.value(&operands[2], Type::B32)?;
        self.program.code.push(inst);
        Ok(())
    }

    fn redux(&mut self, m: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), ParseError> {
        self.sync(m)?;
        self.at_least(operands, 3)?;
        let kinds = [
            ("add", AtomicOp::Add),
            ("min", AtomicOp::Min),
            ("max", AtomicOp::Max),
            ("and", AtomicOp::And),
            ("or", AtomicOp::Or),
            ("xor", AtomicOp::Xor),
        ];
        let op = m.choose(&kinds);
        let ty = m.expect_ty(self.line)?;
        let (Some(op), false) = (op, ty.float()) else {
            return self.error(format!("`{}` is not supported", m.opcode()));
        };
        let mut inst = self.inst(Op::Warp(WarpOp::Reduce(op, ty.signed())));
        inst.d = self.destination(&operands[0])?.index;
        inst.a = self.value(&operands[1], ty)?;
        inst.m = self.value(&operands[2], Type::B32)?;
        self.program.code.push(inst);
        Ok(())
    }
}

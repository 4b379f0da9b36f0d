//! Syntax to decoded instructions: one program per entry, with every function that it can reach.

mod arithmetic;
mod compare;
mod control;
mod memory;
mod modifiers;
mod names;

use std::collections::HashMap;

use crate::error::ParseError;
use crate::op::{Inst, NONE, Op, Predicate};
use crate::parse::Source;
use crate::program::Program;
use crate::syntax::{Function, Instruction, Operand, Statement, Variable};
use crate::types::Space;
use modifiers::Modifiers;
use names::{Names, Symbol};

/// Lowers `entry` of `source`.
pub(crate) fn lower(source: &Source, entry: &Function) -> Result<Program, ParseError> {
    let mut lowerer = Lowerer::new(source);
    lowerer.function(entry)?;
    // A call puts its target on the list; lowering that may put more.
    while let Some(function) = lowerer.queue.pop() {
        lowerer.function(function)?;
    }
    lowerer.refuse_recursion(&entry.name)?;
    lowerer.finish()
}

/// Most bytes of local memory per thread, as on a device.
const MAX_LOCAL: usize = 512 << 10;

struct Call {
    at: usize,
    target: String,
}

struct Jump {
    at: usize,
    label: String,
    scopes: Vec<u32>,
    line: u32,
}

/// Where a function keeps what passes between it and its callers, in local memory.
struct Frame {
    params: Vec<(u32, u32)>,
    returns: Vec<(u32, u32)>,
    link: u32,
}

struct Lowerer<'a> {
    source: &'a Source,
    program: Program,
    names: Names,
    constants: HashMap<crate::program::Constant, u32>,
    /// Module variables in shared memory that have a place already.
    shared: HashMap<String, usize>,
    starts: HashMap<String, u32>,
    frames: HashMap<String, Frame>,
    edges: Vec<(String, String)>,
    calls: Vec<Call>,
    jumps: Vec<Jump>,
    /// Lists of jump targets to fill in, in the order of `jumps`.
    targets: Vec<(usize, Jump)>,
    labels: HashMap<(u32, String), u32>,
    queue: Vec<&'a Function>,
    current: String,
    in_entry: bool,
    line: u32,
}

impl<'a> Lowerer<'a> {
    fn new(source: &'a Source) -> Self {
        Self {
            source,
            program: Program {
                predicates: 1,
                shared_granule: 4,
                global_granule: 4,
                ..Program::default()
            },
            names: Names::default(),
            constants: HashMap::new(),
            shared: HashMap::new(),
            starts: HashMap::new(),
            frames: HashMap::new(),
            edges: Vec::new(),
            calls: Vec::new(),
            jumps: Vec::new(),
            targets: Vec::new(),
            labels: HashMap::new(),
            queue: Vec::new(),
            current: String::new(),
            in_entry: false,
            line: 0,
        }
    }

    fn error<T>(&self, message: String) -> Result<T, ParseError> {
        Err(ParseError::new(self.line, message))
    }

    fn here(&self) -> u32 {
        u32::try_from(self.program.code.len()).expect("fewer instructions than 2^32")
    }

    /// An instruction with nothing but an operation.
    fn inst(&self, op: Op) -> Inst {
        Inst {
            op,
            guard: Predicate::TRUE,
            p: Predicate::TRUE,
            d: NONE,
            e: NONE,
            a: NONE,
            b: NONE,
            c: NONE,
            m: NONE,
            line: self.line,
        }
    }

    fn function(&mut self, function: &'a Function) -> Result<(), ParseError> {
        if self.starts.contains_key(&function.name) {
            return Ok(());
        }
        self.starts.insert(function.name.clone(), self.here());
        self.current.clone_from(&function.name);
        self.in_entry = function.entry;
        self.names.enter();
        if function.entry {
            let mut offset = 0;
            for param in &function.params {
                offset = place(offset, param);
                self.names.symbol(&param.name, Symbol::Param(offset as u64));
                offset += param.bytes.unwrap_or(0);
            }
        } else {
            let frame = &self.frames[&function.name];
            let places = frame.params.iter().chain(&frame.returns);
            let variables = function.params.iter().chain(&function.returns);
            for ((offset, _), variable) in places.zip(variables) {
                let symbol = Symbol::Local(u64::from(*offset));
                self.names.symbol(&variable.name, symbol);
            }
        }
        let body = function.body.as_deref().unwrap_or_default();
        for statement in body {
            self.statement(statement)?;
        }
        self.end_of_function();
        self.names.leave();
        self.resolve()
    }

    /// Falling off the end returns.
    fn end_of_function(&mut self) {
        let link = self.frames.get(&self.current).map_or(NONE, |f| f.link);
        let op = if self.in_entry {
            Op::Exit
        } else {
            Op::Return { link }
        };
        self.program.code.push(self.inst(op));
    }

    fn statement(&mut self, statement: &'a Statement) -> Result<(), ParseError> {
        match statement {
            Statement::Open => self.names.enter(),
            Statement::Close => self.names.leave(),
            Statement::Label(label) => {
                let place = (self.names.scope(), label.clone());
                let here = self.here();
                self.labels.insert(place, here);
            }
            Statement::Registers { ty, name, count } => self.registers(*ty, name, *count),
            Statement::Variable(variable) => self.variable(variable)?,
            Statement::Targets { label, labels } => self.names.targets(label, labels),
            Statement::Instruction(instruction) => {
                self.line = instruction.line;
                self.instruction(instruction)?;
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &Variable) -> Result<(), ParseError> {
        self.line = variable.line;
        let symbol = match variable.space {
            Space::Shared => Symbol::Shared(self.place_shared(variable)? as u64),
            // `.param` inside a body is an argument of a call.
            Space::Local | Space::Param => {
                let offset = self.place_local(variable)?;
                Symbol::Local(u64::from(offset))
            }
            space => return self.error(format!("a {space} variable inside of a function")),
        };
        self.names.symbol(&variable.name, symbol);
        Ok(())
    }

    fn place_shared(&mut self, variable: &Variable) -> Result<usize, ParseError> {
        let Some(bytes) = variable.bytes else {
            return self.error(format!("`{}` has no size", variable.name));
        };
        let end = self.program.static_shared;
        let offset = place(end, variable);
        self.program.static_shared = offset + bytes;
        let name = (offset, variable.name.clone());
        self.program.shared_names.push(name);
        Ok(offset)
    }

    fn place_local(&mut self, variable: &Variable) -> Result<u32, ParseError> {
        let end = self.program.local_bytes;
        let offset = place(end, variable);
        let end = offset + variable.bytes.unwrap_or(0);
        if end > MAX_LOCAL {
            return self.error(format!("{end} bytes of local memory, at most {MAX_LOCAL}"));
        }
        self.program.local_bytes = end;
        Ok(u32::try_from(offset).expect("below the limit"))
    }

    fn instruction(&mut self, instruction: &'a Instruction) -> Result<(), ParseError> {
        let mut modifiers = Modifiers::new(&instruction.opcode);
        let guard = match &instruction.guard {
            None => Predicate::TRUE,
            Some(guard) => {
                let index = self.predicate_register(&guard.register)?;
                let negated = guard.negated;
                Predicate { index, negated }
            }
        };
        let start = self.program.code.len();
        let operands = &instruction.operands;
        self.dispatch(&mut modifiers, operands)
            .and_then(|()| modifiers.finish(self.line, &instruction.opcode))?;
        for inst in &mut self.program.code[start..] {
            inst.guard = guard;
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        modifiers: &mut Modifiers<'_>,
        operands: &'a [Operand],
    ) -> Result<(), ParseError> {
        let known = self.arithmetic(modifiers, operands)?
            || self.comparing(modifiers, operands)?
            || self.memory(modifiers, operands)?
            || self.control(modifiers, operands)?;
        if known {
            Ok(())
        } else {
            self.error(format!("unknown opcode `{}`", modifiers.opcode()))
        }
    }

    fn resolve(&mut self) -> Result<(), ParseError> {
        for jump in std::mem::take(&mut self.jumps) {
            let target = self.label(&jump)?;
            self.program.code[jump.at].op = Op::Branch(target);
        }
        for (place, jump) in std::mem::take(&mut self.targets) {
            self.program.lists[place] = self.label(&jump)?;
        }
        self.labels.clear();
        Ok(())
    }

    fn label(&self, jump: &Jump) -> Result<u32, ParseError> {
        let found = jump.scopes.iter().rev();
        let found = found
            .filter_map(|&scope| self.labels.get(&(scope, jump.label.clone())))
            .next();
        found.copied().ok_or_else(|| {
            ParseError::new(jump.line, format!("there is no label `{}`", jump.label))
        })
    }

    fn refuse_recursion(&mut self, entry: &str) -> Result<(), ParseError> {
        // Names of functions on the way down, and those that are known to lead nowhere back.
        let mut stack = vec![(entry.to_owned(), 0)];
        let mut done: Vec<String> = Vec::new();
        while let Some((name, next)) = stack.pop() {
            let callees = self.edges.iter().filter(|(caller, _)| *caller == name);
            match callees.clone().nth(next) {
                None => done.push(name),
                Some((_, callee)) => {
                    let callee = callee.clone();
                    stack.push((name, next + 1));
                    if stack.iter().any(|(name, _)| *name == callee) {
                        return self.error(format!("function `{callee}` calls itself"));
                    }
                    if !done.contains(&callee) {
                        stack.push((callee, 0));
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Program, ParseError> {
        for call in std::mem::take(&mut self.calls) {
            let start = self.starts[&call.target];
            if let Op::Call { target, .. } = &mut self.program.code[call.at].op {
                *target = start;
            }
        }
        let constants = self.constants.into_iter().map(|(value, row)| (row, value));
        self.program.constants = constants.collect();
        self.program.constants.sort_by_key(|(row, _)| *row);
        Ok(self.program)
    }
}

/// Rounds `end` up to the variable's alignment: where the variable lies.
fn place(end: usize, variable: &Variable) -> usize {
    end.next_multiple_of(variable.align)
}

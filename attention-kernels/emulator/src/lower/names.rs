//! Names to rows, predicates and addresses.

use std::collections::HashMap;

use super::Lowerer;
use crate::error::ParseError;
use crate::exec::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::op::Predicate;
use crate::program::{Constant, Special};
use crate::syntax::{Number, Operand};
use crate::types::{Space, Type};

/// A register's type and its row, or its number for a predicate.
#[derive(Clone, Copy)]
pub(super) struct Register {
    pub(super) ty: Type,
    pub(super) index: u32,
}

/// An address in its own space.
#[derive(Clone, Copy)]
pub(super) enum Symbol {
    Shared(u64),
    Local(u64),
    /// In the arguments of the entry.
    Param(u64),
}

#[derive(Default)]
struct Scope {
    id: u32,
    registers: HashMap<String, Register>,
    /// `%r<10>`: first register and how many.
    ranges: HashMap<String, (Register, u32)>,
    symbols: HashMap<String, Symbol>,
    targets: HashMap<String, Vec<String>>,
}

/// Nested scopes.
#[derive(Default)]
pub(super) struct Names {
    scopes: Vec<Scope>,
    next: u32,
}

impl Names {
    pub(super) fn enter(&mut self) {
        self.next += 1;
        let id = self.next;
        self.scopes.push(Scope {
            id,
            ..Scope::default()
        });
    }

    pub(super) fn leave(&mut self) {
        self.scopes.pop();
    }

    fn top(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("a function has a scope")
    }

    pub(super) fn scope(&self) -> u32 {
        self.scopes.last().map_or(0, |scope| scope.id)
    }

    pub(super) fn open_scopes(&self) -> Vec<u32> {
        self.scopes.iter().map(|scope| scope.id).collect()
    }

    pub(super) fn symbol(&mut self, name: &str, symbol: Symbol) {
        self.top().symbols.insert(name.to_owned(), symbol);
    }

    pub(super) fn targets(&mut self, label: &str, labels: &[String]) {
        self.top().targets.insert(label.to_owned(), labels.to_vec());
    }

    pub(super) fn find_targets(&self, label: &str) -> Option<&Vec<String>> {
        let mut scopes = self.scopes.iter().rev();
        scopes.find_map(|scope| scope.targets.get(label))
    }

    fn find_symbol(&self, name: &str) -> Option<Symbol> {
        let mut scopes = self.scopes.iter().rev();
        scopes.find_map(|scope| scope.symbols.get(name).copied())
    }

    fn find_register(&self, name: &str) -> Option<Register> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<u32>().ok();
        self.scopes.iter().rev().find_map(|scope| {
            scope.registers.get(name).copied().or_else(|| {
                let (first, count) = scope.ranges.get(stem)?;
                let number = number.filter(|number| number < count)?;
                Some(Register {
                    ty: first.ty,
                    index: first.index + number,
                })
            })
        })
    }
}

impl Lowerer<'_> {
    pub(super) fn registers(&mut self, ty: Type, name: &str, count: Option<u32>) {
        let pool = if ty == Type::Pred {
            &mut self.program.predicates
        } else {
            &mut self.program.rows
        };
        let register = Register { ty, index: *pool };
        *pool += count.unwrap_or(1);
        let scope = self.names.top();
        match count {
            None => {
                scope.registers.insert(name.to_owned(), register);
            }
            Some(count) => {
                scope.ranges.insert(name.to_owned(), (register, count));
            }
        }
    }

    /// A row of its own.
    pub(super) fn new_row(&mut self) -> u32 {
        self.program.rows += 1;
        self.program.rows - 1
    }

    pub(super) fn constant(&mut self, constant: Constant) -> u32 {
        if let Some(row) = self.constants.get(&constant) {
            return *row;
        }
        let row = self.new_row();
        self.constants.insert(constant, row);
        row
    }

    pub(super) fn register(&self, name: &str) -> Result<Register, ParseError> {
        match self.names.find_register(name) {
            Some(register) => Ok(register),
            None => self.error(format!("there is no register `{name}`")),
        }
    }

    pub(super) fn predicate_register(&self, name: &str) -> Result<u32, ParseError> {
        let register = self.register(name)?;
        if register.ty == Type::Pred {
            Ok(register.index)
        } else {
            self.error(format!("`{name}` is no predicate but {}", register.ty))
        }
    }

    /// A predicate that is read.
    pub(super) fn predicate(&self, operand: &Operand) -> Result<Predicate, ParseError> {
        match operand {
            Operand::Name(name) => Ok(Predicate {
                index: self.predicate_register(name)?,
                negated: false,
            }),
            Operand::Not(name) => Ok(Predicate {
                index: self.predicate_register(name)?,
                negated: true,
            }),
            Operand::Number(Number::Integer(value)) => Ok(Predicate {
                index: 0,
                negated: *value == 0,
            }),
            _ => self.error("expected a predicate".to_owned()),
        }
    }

    /// The row that an instruction writes, and its type.
    pub(super) fn destination(&mut self, operand: &Operand) -> Result<Register, ParseError> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(Register {
                ty: Type::B64,
                index: self.new_row(),
            }),
            Operand::Name(name) => {
                let register = self.register(name)?;
                if register.ty == Type::Pred {
                    return self.error(format!("`{name}` is a predicate"));
                }
                Ok(register)
            }
            _ => self.error("expected a register".to_owned()),
        }
    }

    /// The row of a source of type `ty`.
    pub(super) fn value(&mut self, operand: &Operand, ty: Type) -> Result<u32, ParseError> {
        match operand {
            Operand::Number(number) => Ok(self.constant(Constant::Value(literal(*number, ty)))),
            Operand::Name(name) => self.named(name, 0),
            Operand::Sum(name, offset) => self.named(name, *offset),
            _ => self.error("expected a register, a number or a variable".to_owned()),
        }
    }

    fn named(&mut self, name: &str, offset: i64) -> Result<u32, ParseError> {
        if let Some(register) = self.names.find_register(name) {
            return if register.ty == Type::Pred || offset != 0 {
                self.error(format!("`{name}` is no number"))
            } else {
                Ok(register.index)
            };
        }
        if let Some(special) = special(name) {
            return Ok(self.constant(Constant::Special(special)));
        }
        let Some((constant, _)) = self.find_address(name, offset)? else {
            return self.error(format!("there is no register or variable `{name}`"));
        };
        Ok(self.constant(constant))
    }

    /// The address of a variable in its own space.
    pub(super) fn find_address(
        &mut self,
        name: &str,
        offset: i64,
    ) -> Result<Option<(Constant, Space)>, ParseError> {
        let at = |base: u64| Constant::Value(base.wrapping_add_signed(offset));
        if let Some(symbol) = self.names.find_symbol(name) {
            return Ok(Some(match symbol {
                Symbol::Shared(base) => (at(base), Space::Shared),
                Symbol::Local(base) => (at(base), Space::Local),
                Symbol::Param(base) => (at(base), Space::Param),
            }));
        }
        let mut variables = self.source.variables.iter().enumerate();
        let Some((index, variable)) = variables.find(|(_, variable)| variable.name == name) else {
            return Ok(None);
        };
        let space = variable.space;
        Ok(Some(match (space, variable.bytes) {
            (Space::Shared, None) => (Constant::Dynamic { offset }, space),
            (Space::Shared, Some(_)) => {
                let base = match self.shared.get(name) {
                    Some(base) => *base,
                    None => self.place_shared(variable)?,
                };
                self.shared.insert(name.to_owned(), base);
                (at(base as u64), space)
            }
            _ => {
                let index = u32::try_from(index).expect("fewer variables than 2^32");
                (Constant::Variable { index, offset }, space)
            }
        }))
    }

    /// Where `space` starts among generic addresses.
    pub(super) fn window(space: Space) -> u64 {
        match space {
            Space::Shared => SHARED_WINDOW,
            Space::Local => LOCAL_WINDOW,
            Space::Param => PARAM_WINDOW,
            _ => 0,
        }
    }
}

/// The bits of a literal where `ty` is expected.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a double where a float is expected is rounded to one"
)]
fn literal(number: Number, ty: Type) -> u64 {
    match (number, ty) {
        (Number::F32(bits), Type::F64) => f64::from(f32::from_bits(bits)).to_bits(),
        (Number::F64(bits), Type::F32) => u64::from((f64::from_bits(bits) as f32).to_bits()),
        (Number::F32(bits), _) => u64::from(bits),
        (Number::F64(bits), _) => bits,
        (Number::Integer(value), _) => match ty.bits() {
            0 | 64 => value,
            bits => value & ((1 << bits) - 1),
        },
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |axis: &str| match axis {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    Some(match name {
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::Warps,
        "%lanemask_eq" => Special::MaskEq,
        "%lanemask_le" => Special::MaskLe,
        "%lanemask_lt" => Special::MaskLt,
        "%lanemask_ge" => Special::MaskGe,
        "%lanemask_gt" => Special::MaskGt,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%clock" | "%clock64" | "%clock_hi" | "%globaltimer" => Special::Clock,
        "%smid" | "%gridid" => Special::Zero,
        _ => {
            let (stem, part) = name.rsplit_once('.')?;
            let axis = axis(part)?;
            match stem {
                "%tid" => Special::Thread(axis),
                "%ntid" => Special::BlockSize(axis),
                "%ctaid" => Special::Block(axis),
                "%nctaid" => Special::GridSize(axis),
                _ => return None,
            }
        }
    })
}

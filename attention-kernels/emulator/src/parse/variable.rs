//! Declarations of variables and registers.

use super::{Parser, number};
use crate::error::ParseError;
use crate::lexer::Kind;
use crate::syntax::{Number, Statement, Variable};
use crate::types::{Space, Type};

impl Parser<'_, '_> {
    /// `.align 4 .b8 a[4], b[8] = {..};` after the space.
    pub(super) fn variables(&mut self, space: Space) -> Result<Vec<Variable>, ParseError> {
        let first = self.variable(space)?;
        let (align, ty) = (first.align, first.ty);
        let mut variables = vec![first];
        while self.take(',') {
            variables.push(self.declarator(space, align, ty)?);
        }
        self.mark(';')?;
        Ok(variables)
    }

    /// One variable, up to its initial value.
    pub(super) fn variable(&mut self, space: Space) -> Result<Variable, ParseError> {
        let mut align = None;
        let mut ty = None;
        let mut lanes = 1;
        while let Some(Kind::Word(word)) = self.peek() {
            let Some(directive) = word.strip_prefix('.') else {
                break;
            };
            self.at += 1;
            match directive {
                "align" => align = Some(self.integer()?),
                "v2" => lanes = 2,
                "v4" => lanes = 4,
                // Of a pointer that is a parameter: `.ptr .global .align 8`. Its alignment is that of what it points to.
                "ptr" => {
                    while let Some(Kind::Word(".global" | ".shared" | ".local" | ".const")) =
                        self.peek()
                    {
                        self.at += 1;
                    }
                    if self.take_word(".align") {
                        self.integer()?;
                    }
                }
                "attribute" => self.skip_past(')')?,
                _ => ty = Some(Type::parse(directive).ok_or_else(|| self.unknown(word))?),
            }
        }
        let ty = ty.ok_or_else(|| self.error("a type"))?;
        let align = align.unwrap_or(usize::from(ty.bytes()) * lanes);
        self.declarator(space, align, ty)
    }

    fn unknown(&self, word: &str) -> ParseError {
        ParseError::new(self.line(), format!("unknown type `{word}`"))
    }

    fn declarator(&mut self, space: Space, align: usize, ty: Type) -> Result<Variable, ParseError> {
        let line = self.line();
        let name = self.word("the name of a variable")?.to_owned();
        let mut elements = Some(1_usize);
        let mut array = false;
        while self.take('[') {
            array = true;
            elements = if self.is(']') {
                None
            } else {
                let size = self.integer()?;
                elements.and_then(|elements| elements.checked_mul(size))
            };
            self.mark(']')?;
        }
        let size = usize::from(ty.bytes());
        let mut variable = Variable {
            name,
            space,
            align: align.max(1),
            ty,
            array,
            bytes: elements.and_then(|elements| elements.checked_mul(size)),
            initial: Vec::new(),
            pointers: Vec::new(),
            line,
        };
        if self.take('=') {
            self.initial(&mut variable)?;
            if variable.bytes.is_none() {
                variable.bytes = Some(variable.initial.len());
            }
            if variable.bytes < Some(variable.initial.len()) {
                let what = format!("`{}` has more values than elements", variable.name);
                return Err(ParseError::new(line, what));
            }
        }
        Ok(variable)
    }

    fn initial(&mut self, variable: &mut Variable) -> Result<(), ParseError> {
        if self.take('{') {
            while !self.take('}') {
                self.initial(variable)?;
                if !self.is('}') {
                    self.mark(',')?;
                }
            }
            return Ok(());
        }
        let size = usize::from(variable.ty.bytes());
        let bits = match self.peek() {
            Some(Kind::Word(word)) => {
                self.at += 1;
                let symbol = if word == "generic" {
                    self.mark('(')?;
                    let symbol = self.word("a variable")?;
                    self.mark(')')?;
                    symbol
                } else {
                    word
                };
                let offset = if self.is('+') { self.offset()? } else { 0 };
                if size != 8 {
                    return Err(self.error("an address only where the type has 64 bits"));
                }
                let place = (variable.initial.len(), symbol.to_owned(), offset);
                variable.pointers.push(place);
                0
            }
            _ => match self.number()? {
                Number::Integer(value) => value,
                Number::F32(bits) => u64::from(bits),
                Number::F64(bits) => bits,
            },
        };
        variable.initial.extend(&bits.to_le_bytes()[..size]);
        Ok(())
    }

    /// `+4`, `-4`, `+-4`, or nothing.
    pub(super) fn offset(&mut self) -> Result<i64, ParseError> {
        let mut negative = false;
        let mut signs = 0;
        while self.is('+') || self.is('-') {
            negative ^= self.is('-');
            signs += 1;
            self.at += 1;
        }
        if signs == 0 {
            return Ok(0);
        }
        let offset = i64::try_from(self.integer()?).map_err(|_| self.error("a smaller offset"))?;
        Ok(if negative { -offset } else { offset })
    }

    pub(super) fn integer(&mut self) -> Result<usize, ParseError> {
        match self.number()? {
            Number::Integer(value) => {
                usize::try_from(value).map_err(|_| self.error("a smaller number"))
            }
            _ => Err(self.error("a whole number")),
        }
    }

    /// A literal with its sign.
    pub(super) fn number(&mut self) -> Result<Number, ParseError> {
        let negative = self.take('-');
        let Some(Kind::Number(text)) = self.peek() else {
            return Err(self.error("a number"));
        };
        let value = number::parse(text).ok_or_else(|| self.error("a number"))?;
        self.at += 1;
        Ok(if negative {
            number::negate(value)
        } else {
            value
        })
    }

    /// `.b32 %r<10>, %x;` after `.reg`.
    pub(super) fn registers(&mut self, out: &mut Vec<Statement>) -> Result<(), ParseError> {
        let word = self.word("a type")?;
        let ty = word.strip_prefix('.').and_then(Type::parse);
        let ty = ty.ok_or_else(|| self.unknown(word))?;
        loop {
            let name = self.word("the name of a register")?.to_owned();
            let count = if self.take('<') {
                let count = u32::try_from(self.integer()?).map_err(|_| self.error("fewer"))?;
                self.mark('>')?;
                Some(count)
            } else {
                None
            };
            out.push(Statement::Registers { ty, name, count });
            if !self.take(',') {
                return self.mark(';');
            }
        }
    }
}

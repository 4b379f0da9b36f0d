//! What stands between the braces of a function.

use super::{Parser, space};
use crate::error::ParseError;
use crate::lexer::Kind;
use crate::syntax::{Guard, Instruction, Operand, Statement};

impl Parser<'_, '_> {
    pub(super) fn body(&mut self) -> Result<Vec<Statement>, ParseError> {
        self.mark('{')?;
        let mut statements = Vec::new();
        let mut depth = 1;
        loop {
            if self.take('{') {
                depth += 1;
                statements.push(Statement::Open);
            } else if self.take('}') {
                depth -= 1;
                if depth == 0 {
                    return Ok(statements);
                }
                statements.push(Statement::Close);
            } else if !self.take(';') {
                self.statement(&mut statements)?;
            }
        }
    }

    fn statement(&mut self, out: &mut Vec<Statement>) -> Result<(), ParseError> {
        if self.is('@') {
            let instruction = self.instruction()?;
            out.push(Statement::Instruction(instruction));
            return Ok(());
        }
        let word = self.word("a statement")?;
        if self.take(':') {
            return self.labelled(word, out);
        }
        match word {
            ".reg" => self.registers(out),
            ".loc" | ".file" => {
                self.skip_line();
                Ok(())
            }
            ".pragma" => self.skip_past(';'),
            _ => {
                if let Some(space) = space(word) {
                    let variables = self.variables(space)?;
                    out.extend(variables.into_iter().map(Statement::Variable));
                    return Ok(());
                }
                self.at -= 1;
                if word.starts_with('.') {
                    return Err(self.error("a statement"));
                }
                let instruction = self.instruction()?;
                out.push(Statement::Instruction(instruction));
                Ok(())
            }
        }
    }

    /// A label, or the list of labels that it names.
    fn labelled(&mut self, label: &str, out: &mut Vec<Statement>) -> Result<(), ParseError> {
        let label = label.to_owned();
        if !self.take_word(".branchtargets") {
            out.push(Statement::Label(label));
            return Ok(());
        }
        let mut labels = Vec::new();
        loop {
            labels.push(self.word("a label")?.to_owned());
            if !self.take(',') {
                break;
            }
        }
        out.push(Statement::Targets { label, labels });
        self.mark(';')
    }

    fn instruction(&mut self) -> Result<Instruction, ParseError> {
        let guard = if self.take('@') {
            let negated = self.take('!');
            let register = self.word("a predicate")?.to_owned();
            Some(Guard { register, negated })
        } else {
            None
        };
        let line = self.line();
        let opcode = self.word("an opcode")?.to_owned();
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.operand()?);
            if !self.is(';') {
                self.mark(',')?;
            }
        }
        Ok(Instruction {
            guard,
            opcode,
            operands,
            line,
        })
    }

    fn operand(&mut self) -> Result<Operand, ParseError> {
        if self.take('{') {
            return Ok(Operand::Vector(self.operands('}')?));
        }
        if self.take('(') {
            return Ok(Operand::List(self.operands(')')?));
        }
        if self.take('[') {
            return self.address();
        }
        if self.take('!') {
            return Ok(Operand::Not(self.word("a predicate")?.to_owned()));
        }
        let Some(Kind::Word(name)) = self.peek() else {
            return Ok(Operand::Number(self.number()?));
        };
        self.at += 1;
        let name = name.to_owned();
        if self.take('|') {
            return Ok(Operand::Pair(name, self.word("a register")?.to_owned()));
        }
        if self.is('+') {
            return Ok(Operand::Sum(name, self.offset()?));
        }
        Ok(Operand::Name(name))
    }

    fn operands(&mut self, end: char) -> Result<Vec<Operand>, ParseError> {
        let mut operands = Vec::new();
        while !self.take(end) {
            operands.push(self.operand()?);
            if !self.is(end) {
                self.mark(',')?;
            }
        }
        Ok(operands)
    }

    fn address(&mut self) -> Result<Operand, ParseError> {
        let (base, offset) = match self.peek() {
            Some(Kind::Word(name)) => {
                self.at += 1;
                (Some(name.to_owned()), self.offset()?)
            }
            _ => {
                let offset = i64::try_from(self.integer()?);
                (None, offset.map_err(|_| self.error("a smaller address"))?)
            }
        };
        self.mark(']')?;
        Ok(Operand::Address { base, offset })
    }
}

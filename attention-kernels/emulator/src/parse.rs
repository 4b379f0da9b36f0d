//! Tokens to syntax.

mod body;
mod number;
mod variable;

use crate::error::ParseError;
use crate::lexer::{Kind, Token, tokens};
use crate::syntax::{Function, Variable};
use crate::types::Space;

/// All that a module's text holds.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) version: String,
    pub(crate) target: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) functions: Vec<Function>,
}

/// Parses the text of a module.
pub(crate) fn parse(text: &str) -> Result<Source, ParseError> {
    let tokens = tokens(text)?;
    Parser {
        tokens: &tokens,
        at: 0,
    }
    .module()
}

struct Parser<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
}

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Option<Kind<'a>> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    /// The line of the next token, or of the last one.
    fn line(&self) -> u32 {
        let token = self.tokens.get(self.at).or_else(|| self.tokens.last());
        token.map_or(1, |token| token.line)
    }

    fn error(&self, expected: &str) -> ParseError {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Kind::Word(text) | Kind::Number(text)) => format!("`{text}`"),
            Some(Kind::Text(text)) => format!("\"{text}\""),
            Some(Kind::Mark(mark)) => format!("`{mark}`"),
        };
        ParseError::new(self.line(), format!("expected {expected}, found {found}"))
    }

    fn next(&mut self, expected: &str) -> Result<Kind<'a>, ParseError> {
        let kind = self.peek().ok_or_else(|| self.error(expected))?;
        self.at += 1;
        Ok(kind)
    }

    fn is(&self, mark: char) -> bool {
        self.peek() == Some(Kind::Mark(mark))
    }

    /// Steps over `mark` if it is next.
    fn take(&mut self, mark: char) -> bool {
        let found = self.is(mark);
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(Kind::Word(word));
        self.at += usize::from(found);
        found
    }

    fn mark(&mut self, mark: char) -> Result<(), ParseError> {
        if self.take(mark) {
            Ok(())
        } else {
            Err(self.error(&format!("`{mark}`")))
        }
    }

    fn word(&mut self, what: &str) -> Result<&'a str, ParseError> {
        match self.peek() {
            Some(Kind::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.error(what)),
        }
    }

    /// Steps over the rest of the line; `.loc` and `.file` have no other end.
    fn skip_line(&mut self) {
        let line = self.line();
        while self.peek().is_some() && self.line() == line {
            self.at += 1;
        }
    }

    /// Steps over everything up to and with `mark`.
    fn skip_past(&mut self, mark: char) -> Result<(), ParseError> {
        while !self.take(mark) {
            self.next(&format!("`{mark}`"))?;
        }
        Ok(())
    }

    /// Words and numbers up to the end of the line, as they were written.
    fn rest_of_line(&mut self) -> String {
        let line = self.line();
        let mut text = String::new();
        while self.peek().is_some() && self.line() == line {
            match self.peek() {
                Some(Kind::Word(part) | Kind::Number(part) | Kind::Text(part)) => {
                    text.push_str(part);
                }
                Some(Kind::Mark(mark)) => text.push(mark),
                None => {}
            }
            self.at += 1;
        }
        text
    }

    fn module(&mut self) -> Result<Source, ParseError> {
        let mut source = Source::default();
        while self.peek().is_some() {
            let directive = self.word("a directive")?;
            match directive {
                ".version" => source.version = self.rest_of_line(),
                ".target" => source.target = self.rest_of_line(),
                ".address_size" => {
                    if self.rest_of_line() != "64" {
                        return Err(self.error("an address size of 64"));
                    }
                }
                ".visible" | ".weak" | ".extern" | ".common" => {}
                ".file" | ".loc" => self.skip_line(),
                ".pragma" => self.skip_past(';')?,
                ".section" => {
                    self.skip_past('{')?;
                    self.skip_past('}')?;
                }
                ".entry" | ".func" => {
                    let function = self.function(directive == ".entry")?;
                    let known = source
                        .functions
                        .iter_mut()
                        .find(|f| f.name == function.name);
                    match known {
                        Some(known) if known.body.is_none() => *known = function,
                        Some(_) if function.body.is_none() => {}
                        Some(_) => {
                            let what = format!("`{}` is defined twice", function.name);
                            return Err(ParseError::new(self.line(), what));
                        }
                        None => source.functions.push(function),
                    }
                }
                _ => match space(directive) {
                    Some(space) => {
                        let variables = self.variables(space)?;
                        source.variables.extend(variables);
                    }
                    None => {
                        self.at -= 1;
                        return Err(self.error("a directive of module scope"));
                    }
                },
            }
        }
        if source.version.is_empty() {
            return Err(ParseError::new(1, "the text has no .version".to_owned()));
        }
        Ok(source)
    }

    fn function(&mut self, entry: bool) -> Result<Function, ParseError> {
        let returns = if self.is('(') {
            self.params()?
        } else {
            Vec::new()
        };
        let mut function = Function {
            name: self.word("the name of a function")?.to_owned(),
            entry,
            returns,
            params: Vec::new(),
            body: None,
            max_threads: None,
            required: None,
        };
        if self.is('(') {
            function.params = self.params()?;
        }
        while !self.is('{') && !self.is(';') {
            let directive = self.word("a directive of a function")?;
            let numbers = self.numbers()?;
            if matches!(directive, ".maxntid" | ".reqntid") {
                let size = |at: usize| numbers.get(at).copied().unwrap_or(1);
                function.max_threads = Some(size(0) * size(1) * size(2));
                if directive == ".reqntid" {
                    function.required = Some([size(0), size(1), size(2)]);
                }
            }
        }
        if !self.take(';') {
            function.body = Some(self.body()?);
        }
        Ok(function)
    }

    /// Numbers with commas between them, perhaps none.
    fn numbers(&mut self) -> Result<Vec<u32>, ParseError> {
        let mut numbers = Vec::new();
        while let Some(Kind::Number(text)) = self.peek() {
            let number = text.parse().map_err(|_| self.error("a small number"))?;
            numbers.push(number);
            self.at += 1;
            if !self.take(',') {
                break;
            }
        }
        Ok(numbers)
    }

    fn params(&mut self) -> Result<Vec<Variable>, ParseError> {
        self.mark('(')?;
        let mut params = Vec::new();
        while !self.take(')') {
            if !self.take_word(".param") {
                return Err(self.error("`.param`"));
            }
            params.push(self.variable(Space::Param)?);
            if !self.is(')') {
                self.mark(',')?;
            }
        }
        Ok(params)
    }
}

/// The space that a directive declares variables in.
fn space(directive: &str) -> Option<Space> {
    Some(match directive {
        ".global" => Space::Global,
        ".const" => Space::Const,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        ".param" => Space::Param,
        _ => return None,
    })
}

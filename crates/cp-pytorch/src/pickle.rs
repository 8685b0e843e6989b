//! Pickles without Python: the stack machine that a pickle is a program for, with values of our own and nothing that runs.
//!
//! What a global means is in [`globals`]; whatever is not known there becomes an [opaque](value::Object::Opaque) value, and only using it
//! is an error. Objects lie side by side in a [`Heap`] and refer to each other by number, so that neither depth nor circles nor objects
//! that are referred to a million times cost anything.
//!
//! Reference: the opcodes of Python's `pickletools`, protocols 0 to 5.

mod globals;
pub(crate) mod value;

use std::collections::HashMap;
use std::rc::Rc;

use crate::limits::{MAX_MARKS, MAX_OPCODES};
use value::{Heap, Object, Value};

/// What is wrong with a pickle, and at which of its bytes.
#[derive(Debug, thiserror::Error)]
#[error("byte {at} of the pickle: {problem}")]
pub struct PickleError {
    /// The opcode's position.
    pub at: usize,
    /// What is wrong.
    pub problem: PickleProblem,
}

/// What is wrong with a pickle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickleProblem {
    /// The end comes too early.
    #[error("it ends here: the file is cut off, fetch or copy it again")]
    End,
    /// A byte that is no opcode, or one that no file of PyTorch has.
    #[error("opcode {0:#04x}, which no file of PyTorch has; the file is damaged")]
    Opcode(u8),
    /// An opcode that takes more than there is.
    #[error("nothing left to take from the stack; the file is damaged")]
    Stack,
    /// A reference to what was never kept.
    #[error("refers to object {0}, which there is not; the file is damaged")]
    Memo(u64),
    /// A text that is none, or a number that is none.
    #[error("no valid {0}; the file is damaged")]
    Text(&'static str),
    /// Too many opcodes, or collections too deep inside each other.
    #[error("more than {most} {what}; the file is damaged or made to do harm")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// An object of a kind that the opcode or the function cannot take.
    #[error(
        "{what}: expected {expected}; the file is damaged, or of a version of PyTorch that is not known"
    )]
    Argument {
        /// What is being made.
        what: &'static str,
        /// What it is made from.
        expected: &'static str,
    },
}

/// Runs the pickle at the beginning of `bytes`: its objects, its value, and how many bytes it takes.
pub(crate) fn run(bytes: &[u8]) -> Result<(Heap, Value, usize), PickleError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        heap: Heap::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..MAX_OPCODES {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) => return Ok((machine.heap, value, machine.at)),
            Err(problem) => return Err(PickleError { at, problem }),
        }
    }
    let problem = PickleProblem::TooMany { what: "opcodes", most: MAX_OPCODES };
    Err(PickleError { at: machine.at, problem })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    heap: Heap,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
}

type Step<T> = Result<T, PickleProblem>;

impl<'a> Machine<'a> {
    /// One opcode; the value of the pickle at its end.
    fn step(&mut self) -> Step<Option<Value>> {
        let [opcode] = self.fixed()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            // PROTO, and FRAME, which only groups.
            0x80 => {
                self.fixed::<1>()?;
            }
            0x95 => {
                self.fixed::<8>()?;
            }
            b'(' => {
                if self.marks.len() == MAX_MARKS {
                    return Err(PickleProblem::TooMany {
                        what: "nested collections",
                        most: MAX_MARKS,
                    });
                }
                self.marks.push(self.stack.len());
            }
            b'0' => {
                // A mark may be what lies on top.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'I' | b'L' | b'F' | b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => {
                let value = self.number(opcode)?;
                self.stack.push(value);
            }
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => {
                let value = self.text(opcode)?;
                self.stack.push(value);
            }
            b']' => self.push(Object::List(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b')' => self.push(Object::Tuple(Vec::new())),
            0x8f => self.push(Object::Opaque(Rc::from("set"))),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Object::List(items));
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items));
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Object::Opaque(Rc::from("frozenset")));
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Object::Dict(pairs(items)?));
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Object::Tuple(items));
            }
            b'a' => {
                let items = self.pop_many(1)?;
                self.append(items)?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(items)?;
            }
            0x90 => {
                self.pop_mark()?;
                self.top()?;
            }
            b'c' | 0x93 | b'i' | b'o' | b'R' | b'b' | 0x81 | 0x92 | b'P' | b'Q' => {
                self.object(opcode)?;
            }
            b'g' | b'h' | b'j' => {
                let index = self.index(opcode)?;
                let value = self.memo.get(&index).cloned().ok_or(PickleProblem::Memo(index))?;
                self.stack.push(value);
            }
            b'p' | b'q' | b'r' => {
                let index = self.index(opcode)?;
                let value = self.top()?;
                self.memo.insert(index, value);
            }
            0x94 => {
                let value = self.top()?;
                self.memo.insert(self.memo.len() as u64, value);
            }
            other => return Err(PickleProblem::Opcode(other)),
        }
        Ok(None)
    }

    /// The opcodes that name a class or function, call one, or tell an object its state.
    fn object(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = globals::named(module, name);
                self.push(Object::Global(global));
            }
            0x93 => {
                let parts = self.pop_many(2)?;
                let [Value::Text(module), Value::Text(name)] = &parts[..] else {
                    return Err(PickleProblem::Argument {
                        what: "a global",
                        expected: "two names",
                    });
                };
                let global = globals::named(module, name);
                self.push(Object::Global(global));
            }
            b'i' => {
                let global = globals::named(self.line()?, self.line()?);
                let items = self.pop_mark()?;
                let value = globals::call(&mut self.heap, &global, &items)?;
                self.stack.push(value);
            }
            b'o' => {
                let mut items = self.pop_mark()?;
                if items.is_empty() {
                    return Err(PickleProblem::Stack);
                }
                let class = items.remove(0);
                self.call(&class, &items)?;
            }
            // REDUCE, NEWOBJ, and NEWOBJ_EX with named arguments behind the others.
            b'R' | 0x81 | 0x92 => {
                let parts = self.pop_many(if opcode == 0x92 { 3 } else { 2 })?;
                let Some(Object::Tuple(items)) = self.heap.get(&parts[1]) else {
                    let what = "arguments of a call";
                    return Err(PickleProblem::Argument { what, expected: "a tuple" });
                };
                let items = items.clone();
                self.call(&parts[0], &items)?;
            }
            // Attributes: those of tensors, ordered dicts and opaque objects say nothing about weights.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            _ => {
                let id =
                    if opcode == b'P' { Value::Text(Rc::from(self.line()?)) } else { self.pop()? };
                let value = globals::persistent(&mut self.heap, &id)?;
                self.stack.push(value);
            }
        }
        Ok(())
    }

    fn call(&mut self, callee: &Value, items: &[Value]) -> Step<()> {
        let global = match self.heap.get(callee) {
            Some(Object::Global(global)) => global.clone(),
            Some(Object::Opaque(class)) => globals::Global::Class(class.clone()),
            _ => {
                let (what, expected) = ("a call", "a class or function");
                return Err(PickleProblem::Argument { what, expected });
            }
        };
        let value = globals::call(&mut self.heap, &global, items)?;
        self.stack.push(value);
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) -> Step<()> {
        let list = self.top()?;
        match self.heap.get_mut(&list) {
            Some(Object::List(list)) => list.extend(items),
            // A class of lists, whose contents go with it.
            Some(Object::Opaque(_)) => {}
            _ => return Err(PickleProblem::Argument { what: "items", expected: "a list" }),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value>) -> Step<()> {
        let items = pairs(items)?;
        let dict = self.top()?;
        match self.heap.get_mut(&dict) {
            Some(Object::Dict(dict)) => dict.extend(items),
            Some(Object::Opaque(_)) => {}
            _ => return Err(PickleProblem::Argument { what: "items", expected: "a dict" }),
        }
        Ok(())
    }

    fn number(&mut self, opcode: u8) -> Step<Value> {
        Ok(match opcode {
            b'J' => Value::Int(i32::from_le_bytes(self.fixed()?).into()),
            b'K' => Value::Int(u8::from_le_bytes(self.fixed()?).into()),
            b'M' => Value::Int(u16::from_le_bytes(self.fixed()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.fixed()?)),
            0x8a => {
                let [length] = self.fixed()?;
                long(self.take(length.into())?)
            }
            0x8b => {
                let length = u32::from_le_bytes(self.fixed()?);
                long(self.take(length as usize)?)
            }
            b'F' => Value::Float(self.line()?.parse().map_err(|_| PickleProblem::Text("number"))?),
            _ => match self.line()? {
                "00" if opcode == b'I' => Value::Bool(false),
                "01" if opcode == b'I' => Value::Bool(true),
                digits => digits
                    .trim_end_matches('L')
                    .parse()
                    .map(Value::Int)
                    .map_err(|_| PickleProblem::Text("number"))?,
            },
        })
    }

    fn text(&mut self, opcode: u8) -> Step<Value> {
        let length = match opcode {
            b'S' | b'V' => {
                // Quotes and escapes stand as they are: what was written before protocol 2 is not looked up by name.
                let line = self.line()?;
                return Ok(Value::Text(Rc::from(line.trim_matches(['\'', '"']))));
            }
            b'U' | 0x8c | b'C' => {
                let [length] = self.fixed()?;
                length.into()
            }
            b'T' | b'X' | b'B' => u32::from_le_bytes(self.fixed()?) as usize,
            _ => usize::try_from(u64::from_le_bytes(self.fixed()?)).unwrap_or(usize::MAX),
        };
        let bytes = self.take(length)?;
        Ok(match opcode {
            b'B' | b'C' | 0x8e | 0x96 => Value::Bytes,
            b'X' | 0x8c | 0x8d => Value::Text(Rc::from(
                std::str::from_utf8(bytes).map_err(|_| PickleProblem::Text("UTF-8"))?,
            )),
            // Strings of Python 2 are bytes, mostly of ASCII.
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(Rc::from(text)),
                Err(_) => Value::Bytes,
            },
        })
    }

    /// The number behind an opcode of the memo.
    fn index(&mut self, opcode: u8) -> Step<u64> {
        Ok(match opcode {
            b'h' | b'q' => u8::from_le_bytes(self.fixed()?).into(),
            b'j' | b'r' => u32::from_le_bytes(self.fixed()?).into(),
            _ => self.line()?.parse().map_err(|_| PickleProblem::Text("number"))?,
        })
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(length);
        let part = end.and_then(|end| self.bytes.get(self.at..end)).ok_or(PickleProblem::End)?;
        self.at += length;
        Ok(part)
    }

    fn fixed<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| PickleProblem::End)
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(PickleProblem::End)?;
        let line =
            std::str::from_utf8(&rest[..length]).map_err(|_| PickleProblem::Text("UTF-8"))?;
        self.at += length + 1;
        Ok(line)
    }

    fn push(&mut self, object: Object) {
        let value = self.heap.put(object);
        self.stack.push(value);
    }

    /// Height below which the stack belongs to what is around the innermost mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Value> {
        let above = self.stack.len() > self.floor();
        self.stack.last().filter(|_| above).cloned().ok_or(PickleProblem::Stack)
    }

    fn pop(&mut self) -> Step<Value> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Value>> {
        match self.stack.len().checked_sub(count) {
            Some(from) if from >= self.floor() => Ok(self.stack.split_off(from)),
            _ => Err(PickleProblem::Stack),
        }
    }

    fn pop_mark(&mut self) -> Step<Vec<Value>> {
        let from = self.marks.pop().ok_or(PickleProblem::Stack)?;
        Ok(self.stack.split_off(from))
    }
}

/// Keys and values by turns.
fn pairs(items: Vec<Value>) -> Step<Vec<(Value, Value)>> {
    if !items.len().is_multiple_of(2) {
        return Err(PickleProblem::Stack);
    }
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// A whole number in two's complement, the lowest byte first.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Long(Rc::from(bytes));
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = if negative { [0xff; 8] } else { [0; 8] };
    whole[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(whole))
}

//! The pickles in which torch describes tensors, read without running anything: of what a pickle can build, containers, numbers, texts,
//! and tensors over named storages. Every other name or opcode is refused.
//!
//! Opcodes as of CPython's Lib/pickletools.py; what torch writes as of pytorch/pytorch@v2.13.0:torch/{serialization,_utils}.py.

use crate::dtype::Dtype;

/// Values that a pickle may build: those of a model's state are some thousands.
const VALUES: usize = 10_000_000;

/// A tensor over a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The storage's name in the archive.
    pub(crate) key: String,
    pub(crate) dtype: Dtype,
    /// Elements from the storage's start.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// A place in the arena: values hold each other by these, so that nothing is copied, however often it is shared.
type At = usize;

enum Value {
    None,
    Whole(i64),
    Text(String),
    /// Of no use for a tensor.
    Other,
    Tuple(Vec<At>),
    List(Vec<At>),
    Dict(Vec<(At, At)>),
    Global(String),
    Storage {
        dtype: Dtype,
        key: String,
    },
    Tensor(Stored),
}

/// The names and tensors of a state dict, in its order.
///
/// # Errors
/// If the bytes are no pickle, build anything else, or end early.
pub(crate) fn read_state_dict(bytes: &[u8]) -> Result<Vec<(String, Stored)>, String> {
    let machine = Machine { bytes, at: 0, arena: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: Vec::new() };
    machine.run()
}

struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    arena: Vec<Value>,
    stack: Vec<At>,
    marks: Vec<usize>,
    memo: Vec<Option<At>>,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Vec<(String, Stored)>, String> {
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                let top = self.pop()?;
                return self.state_dict(top);
            }
            self.step(opcode).map_err(|reason| format!("{reason} (byte {at} of data.pkl)"))?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'N' => self.push(Value::None)?,
            // NEWTRUE, NEWFALSE
            0x88 => self.push(Value::Whole(1))?,
            0x89 => self.push(Value::Whole(0))?,
            b'J' => {
                let value = i64::from(i32::from_le_bytes(self.array()?));
                self.push(Value::Whole(value))?;
            }
            b'K' => {
                let value = i64::from(self.byte()?);
                self.push(Value::Whole(value))?;
            }
            b'M' => {
                let value = i64::from(u16::from_le_bytes(self.array()?));
                self.push(Value::Whole(value))?;
            }
            // LONG1
            0x8a => {
                let count = usize::from(self.byte()?);
                let value = long(self.take(count)?).ok_or("holds a number of more than 64 bits")?;
                self.push(Value::Whole(value))?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)?;
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'X' => {
                let count = u32::from_le_bytes(self.array()?) as usize;
                self.text(count)?;
            }
            0x8c => {
                let count = usize::from(self.byte()?);
                self.text(count)?;
            }
            0x8d => {
                let count = u64::from_le_bytes(self.array()?);
                self.text(usize::try_from(count).unwrap_or(usize::MAX))?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))?;
            }
            // TUPLE1 to TUPLE3
            0x85..=0x87 => {
                let items = self.split(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let items = self.split(2)?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let slot = usize::from(self.byte()?);
                self.remember(slot)?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?) as usize;
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' => {
                let slot = usize::from(self.byte()?);
                self.recall(slot)?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?) as usize;
                self.recall(slot)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            // STACK_GLOBAL
            0x93 => {
                let items = self.split(2)?;
                let [Value::Text(module), Value::Text(name)] = [&self.arena[items[0]], &self.arena[items[1]]] else {
                    return Err("names a global by what is no text".into());
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            b'R' => {
                let items = self.split(2)?;
                let made = self.call(items[0], items[1])?;
                self.stack.push(made);
            }
            // The attributes of a container or a parameter: a state dict's `_metadata` tells versions of modules.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            other => return Err(format!("uses opcode {other:#04x}, which no state dict of tensors needs")),
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.arena.len() >= VALUES {
            return Err(format!("builds more than {VALUES} values"));
        }
        self.stack.push(self.arena.len());
        self.arena.push(value);
        Ok(())
    }

    /// Values above the last mark are nobody else's.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    fn pop(&mut self) -> Result<At, String> {
        if self.stack.len() <= self.floor() {
            return Err("takes a value where there is none".into());
        }
        self.stack.pop().ok_or_else(|| "takes a value where there is none".into())
    }

    fn top(&self) -> Result<At, String> {
        self.stack.last().copied().ok_or_else(|| "looks at a value where there is none".into())
    }

    fn split(&mut self, count: usize) -> Result<Vec<At>, String> {
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= self.floor());
        Ok(self.stack.split_off(from.ok_or("takes values where there are none")?))
    }

    fn since_mark(&mut self) -> Result<Vec<At>, String> {
        let mark = self.marks.pop().ok_or("takes values since a mark that is not there")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn append(&mut self, new: Vec<At>) -> Result<(), String> {
        let list = self.top()?;
        let Value::List(items) = &mut self.arena[list] else { return Err("appends to what is no list".into()) };
        items.extend(new);
        Ok(())
    }

    fn set(&mut self, pairs: &[At]) -> Result<(), String> {
        let dict = self.top()?;
        let Value::Dict(entries) = &mut self.arena[dict] else { return Err("sets items of what is no dict".into()) };
        entries.extend(pairs.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    fn remember(&mut self, slot: usize) -> Result<(), String> {
        let top = self.top()?;
        // Writers number slots one after another.
        if slot > self.arena.len() + self.memo.len() {
            return Err(format!("uses slot {slot} of the memo, far beyond what it has built"));
        }
        if self.memo.len() <= slot {
            self.memo.resize(slot + 1, None);
        }
        self.memo[slot] = Some(top);
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<(), String> {
        let value =
            self.memo.get(slot).copied().flatten().ok_or_else(|| format!("recalls slot {slot}, which is empty"))?;
        self.stack.push(value);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let full = format!("{module}.{name}");
        let known = matches!(
            full.as_str(),
            "collections.OrderedDict" | "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_parameter"
        );
        if known || dtype_of(&full).is_some() {
            return self.push(Value::Global(full));
        }
        let of_torch = module == "torch" || module.starts_with("torch.");
        Err(match of_torch {
            true => format!(
                "needs `{full}`: of torch's, only plain tensors and parameters are read; save the state dict's tensors alone"
            ),
            false => format!(
                "calls for `{full}`, which is no tensor's; nothing of a pickle is run here. Save the tensors alone, as safetensors"
            ),
        })
    }

    /// `("storage", TYPE, key, device, elements)`.
    fn storage(&self, id: At) -> Result<Value, String> {
        let bad = || "refers to what is no storage".to_owned();
        let Value::Tuple(items) = &self.arena[id] else { return Err(bad()) };
        let of = |at: usize| items.get(at).map(|at| &self.arena[*at]);
        match (of(0), of(1), of(2)) {
            (Some(Value::Text(kind)), Some(Value::Global(class)), Some(Value::Text(key))) if kind == "storage" => {
                Ok(Value::Storage { dtype: dtype_of(class).ok_or_else(bad)?, key: key.clone() })
            }
            _ => Err(bad()),
        }
    }

    fn call(&mut self, callee: At, arguments: At) -> Result<At, String> {
        let (Value::Global(name), Value::Tuple(arguments)) = (&self.arena[callee], &self.arena[arguments]) else {
            return Err("calls what is no name".into());
        };
        let of = |at: usize| arguments.get(at).map(|at| &self.arena[*at]);
        let made = match name.as_str() {
            "collections.OrderedDict" if arguments.is_empty() => Value::Dict(Vec::new()),
            // Of the tensor, whether it is trained, and hooks.
            "torch._utils._rebuild_parameter" => {
                let inner = arguments.first().copied();
                let inner = inner.filter(|at| matches!(self.arena[*at], Value::Tensor(_)));
                return inner.ok_or_else(|| "makes a parameter of what is no tensor".into());
            }
            // A storage, an offset, sizes, strides, whether it is trained, and hooks.
            "torch._utils._rebuild_tensor_v2" => {
                let Some(Value::Storage { dtype, key }) = of(0) else {
                    return Err("makes a tensor of what is no storage".into());
                };
                let sizes = |at| self.sizes(of(at)).ok_or("makes a tensor with sizes that are none");
                let (shape, strides) = (sizes(2)?, sizes(3)?);
                let Some(Value::Whole(offset)) = of(1) else { return Err("makes a tensor without an offset".into()) };
                let offset = usize::try_from(*offset).map_err(|_| "makes a tensor with a negative offset")?;
                if shape.len() != strides.len() {
                    return Err("makes a tensor with as many strides as it has no sizes".into());
                }
                Value::Tensor(Stored { key: key.clone(), dtype: *dtype, offset, shape, strides })
            }
            _ => return Err(format!("calls `{name}` in a way that no tensor needs")),
        };
        self.push(made)?;
        self.stack.pop().ok_or_else(|| "makes nothing".into())
    }

    fn sizes(&self, value: Option<&Value>) -> Option<Vec<usize>> {
        let Some(Value::Tuple(items)) = value else { return None };
        let size = |at: &At| match self.arena[*at] {
            Value::Whole(n) => usize::try_from(n).ok(),
            _ => None,
        };
        items.iter().map(size).collect()
    }

    fn state_dict(mut self, top: At) -> Result<Vec<(String, Stored)>, String> {
        let Value::Dict(entries) = std::mem::replace(&mut self.arena[top], Value::Other) else {
            return Err("holds no state dict but something else; save `model.state_dict()`".into());
        };
        let mut tensors: Vec<(String, Stored)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Value::Text(name) = &self.arena[key] else { return Err("has a key that is no text".into()) };
            match &self.arena[value] {
                Value::Tensor(stored) => tensors.push((name.clone(), stored.clone())),
                _ => return Err(format!("has under `{name}` what is no tensor; save the state dict of tensors alone")),
            }
        }
        Ok(tensors)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "ends early".into())
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let bytes = &self.bytes[self.at..end.ok_or("ends early")?];
        self.at += count;
        Ok(bytes)
    }

    fn text(&mut self, count: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(count)?).map_err(|_| "holds a text that is no UTF-8")?.to_owned();
        self.push(Value::Text(text))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(256).position(|byte| *byte == b'\n').ok_or("names a global without an end")?;
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| "names a global that is no UTF-8")?.to_owned();
        self.at += end + 1;
        Ok(line)
    }
}

fn dtype_of(class: &str) -> Option<Dtype> {
    Some(match class.strip_prefix("torch.")? {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

/// A number in as many bytes as it needs, the lowest first, of two's complement.
fn long(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }

    /// `{"w": tensor}` as torch writes it, the global that makes it named.
    fn pickled(maker: &str, class: &str) -> Vec<u8> {
        let mut out = b"\x80\x02}q\x00(".to_vec();
        text(&mut out, "w");
        let (module, name) = maker.rsplit_once('.').unwrap();
        out.extend(format!("c{module}\n{name}\nq\x01((").into_bytes());
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{class}\n").into_bytes());
        text(&mut out, "0");
        text(&mut out, "cpu");
        out.extend(b"K\x06tQK\x02K\x02K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtRu.");
        out
    }

    #[test]
    fn tensors_are_read_and_nothing_else_is_made() {
        let good = pickled("torch._utils._rebuild_tensor_v2", "BFloat16Storage");
        let stored = Stored { key: "0".into(), dtype: Dtype::BF16, offset: 2, shape: vec![2, 2], strides: vec![2, 1] };
        assert_eq!(read_state_dict(&good).unwrap(), [("w".to_owned(), stored)]);
        let refused = |bytes: &[u8]| read_state_dict(bytes).unwrap_err();
        assert!(refused(&pickled("example.Thing", "FloatStorage")).contains("calls for `example.Thing`"));
        let quantised = pickled("torch._utils._rebuild_tensor_v2", "QInt8Storage");
        assert!(refused(&quantised).contains("needs `torch.QInt8Storage`"));
        assert!(refused(b"\x80\x02K\x01.").contains("no state dict"));
        assert!(refused(b"\x80\x02\x81.").contains("opcode 0x81"));
        for end in 0..good.len() {
            let _ = refused(&good[..end]);
        }
        // Whatever a byte is changed to, it is an answer.
        for at in 0..good.len() {
            for value in [0, 0x28, 0x52, 0x68, 0x71, 0x74, 0x75, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = read_state_dict(&bytes);
            }
        }
    }

    #[test]
    fn numbers_of_any_width() {
        assert_eq!(
            [long(&[]), long(&[0xff]), long(&[0x80, 0x00]), long(&[0; 9])],
            [Some(0), Some(-1), Some(128), None]
        );
    }
}

//! Python's two ways to format: `'%5.2f' % x` and `'{:>5}'.format(x)`.

use crate::RenderError;
use crate::arguments::Given;
use crate::bounds::{LONGEST, pay_text};
use crate::python::arithmetic::{Number, number};
use crate::python::print::{float, repr, text};
use crate::python::{Answer, Kind, elements, fault, item, sequence_kind, type_name, undefined};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

/// How a field is laid out.
#[derive(Default)]
struct Layout {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zeros: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

fn counted(digits: &str) -> Result<usize, Error> {
    let count: usize = digits.parse().map_err(|_| RenderError::TooLong(usize::MAX))?;
    if count > LONGEST { Err(RenderError::TooLong(count).into()) } else { Ok(count) }
}

/// `format % values`.
pub(crate) fn percent(state: &State, format: &str, values: &Value) -> Answer {
    let tuple = sequence_kind(values) == Some(Kind::Tuple);
    let mut items = if tuple { elements(state, values)? } else { vec![values.clone()] }.into_iter();
    let (mut out, mut rest, mut named) = (String::new(), format, false);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut key = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let end = inner.find(')').ok_or_else(|| fault("incomplete format key"))?;
            key = Some(item(state, values, &Value::from(&inner[..end]))?);
            named = true;
            rest = &inner[end + 1..];
        }
        let mut next = |name: &str| items.next().ok_or_else(|| fault(format!("not enough arguments for {name}")));
        let mut layout = Layout::default();
        while let Some(flag) = rest.chars().next().filter(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => layout.align = Some('<'),
                '+' => layout.sign = Some('+'),
                ' ' => layout.sign = layout.sign.or(Some(' ')),
                '#' => layout.alternate = true,
                _ => layout.zeros = true,
            }
            rest = &rest[1..];
        }
        let mut size = |rest: &mut &str| -> Result<Option<i64>, Error> {
            if let Some(after) = rest.strip_prefix('*') {
                *rest = after;
                return next("format string")?.as_i64().map(Some).ok_or_else(|| fault("* wants int"));
            }
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let digits = &rest[..end];
            *rest = &rest[end..];
            if digits.is_empty() { Ok(None) } else { counted(digits).map(|n| Some(n as i64)) }
        };
        if let Some(width) = size(&mut rest)? {
            if width < 0 {
                layout.align = Some('<');
            }
            layout.width = counted(&width.unsigned_abs().to_string())?;
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            layout.precision = Some(usize::try_from(size(&mut rest)?.unwrap_or(0)).unwrap_or(0));
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let kind = rest.chars().next().ok_or_else(|| fault("incomplete format"))?;
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match key {
            Some(value) => value,
            None => next("format string")?,
        };
        let piece = match kind {
            's' => layout.text(&text(state, &value)?),
            'r' | 'a' => layout.text(&repr(state, &value)?),
            'c' => layout.text(&match number(&value) {
                Some(Number::Integer(n)) => character(n)?,
                _ => text(state, &value)?.into_owned(),
            }),
            'd' | 'i' | 'u' => match number(&value) {
                Some(Number::Float(x)) if x.is_finite() => layout.integer(x.trunc() as i128),
                Some(Number::Integer(n)) => layout.integer(n),
                _ => {
                    return Err(fault(format!("%{kind} format: a real number is required, not {}", type_name(&value))));
                }
            },
            'x' | 'X' | 'o' => match number(&value) {
                Some(Number::Integer(n)) => layout.based(n, kind),
                _ => return Err(fault(format!("%{kind} format: an integer is required, not {}", type_name(&value)))),
            },
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match number(&value) {
                Some(n) => layout.real(n.as_float(), kind),
                None if value.is_undefined() => return Err(undefined()),
                None => return Err(fault(format!("must be real number, not {}", type_name(&value)))),
            },
            other => return Err(fault(format!("unsupported format character '{other}'"))),
        };
        pay_text(state, out.len() + piece.len())?;
        out.push_str(&piece);
    }
    if !named && items.next().is_some() && (tuple || values.kind() != ValueKind::Map) {
        return Err(fault("not all arguments converted during string formatting"));
    }
    out.push_str(rest);
    Ok(Value::from(out))
}

fn character(code: i128) -> Result<String, Error> {
    let c = u32::try_from(code).ok().and_then(char::from_u32);
    c.map(String::from).ok_or_else(|| fault("%c arg not in range(0x110000)"))
}

/// `format.format(…)`.
pub(crate) fn braces(state: &State, format: &str, given: &Given) -> Answer {
    let mut automatic = 0;
    expand(state, format, given, &mut automatic, 2).map(Value::from)
}

fn expand(state: &State, format: &str, given: &Given, automatic: &mut usize, left: usize) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(fault("Single '}' encountered in format string"));
        }
        let mut open = 1;
        let end = rest.char_indices().find(|(_, c)| {
            open += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            open == 0
        });
        let Some((end, _)) = end else { return Err(fault("Single '{' encountered in format string")) };
        if left == 0 {
            return Err(fault("Max string recursion exceeded"));
        }
        let (field, specification) = rest[..end].split_once(':').unwrap_or((&rest[..end], ""));
        let (path, conversion) = field.split_once('!').unwrap_or((field, ""));
        let value = field_value(state, path, given, automatic)?;
        let specification = expand(state, specification, given, automatic, left - 1)?;
        let value = match conversion {
            "" => value,
            "s" => Value::from(text(state, &value)?.into_owned()),
            "r" | "a" => Value::from(repr(state, &value)?),
            other => return Err(fault(format!("unknown conversion specifier {other}"))),
        };
        let piece = formatted(state, &value, &specification)?;
        pay_text(state, out.len() + piece.len())?;
        out.push_str(&piece);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn field_value(state: &State, path: &str, given: &Given, automatic: &mut usize) -> Answer {
    let start = path.find(['.', '[']).unwrap_or(path.len());
    let (first, mut rest) = path.split_at(start);
    let missing = || fault("Replacement index out of range for positional args tuple");
    let mut value = if first.is_empty() {
        *automatic += 1;
        given.rest().get(*automatic - 1).cloned().ok_or_else(missing)?
    } else if let Ok(index) = first.parse::<usize>() {
        given.rest().get(index).cloned().ok_or_else(missing)?
    } else {
        let named = given.named().and_then(|named| named.as_object()?.get_value(&Value::from(first)));
        named.ok_or_else(|| fault(format!("KeyError: '{first}'")))?
    };
    while !rest.is_empty() {
        let (name, after) = if let Some(inner) = rest.strip_prefix('[') {
            inner.split_once(']').ok_or_else(|| fault("Missing ']' in format string"))?
        } else {
            let inner =
                rest.strip_prefix('.').ok_or_else(|| fault("Only '.' or '[' may follow ']' in format field"))?;
            inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
        };
        let key = name.parse::<i64>().map_or_else(|_| Value::from(name), Value::from);
        value = item(state, &value, &key)?;
        rest = after;
    }
    Ok(value)
}

/// `format(value, specification)`.
fn formatted(state: &State, value: &Value, specification: &str) -> Result<String, Error> {
    if specification.is_empty() {
        return Ok(text(state, value)?.into_owned());
    }
    let mut layout = Layout::default();
    let mut rest = specification;
    let mut chars = rest.chars();
    let (first, second) = (chars.next(), chars.next());
    if let Some(align) = second.filter(|c| "<>^=".contains(*c)) {
        (layout.fill, layout.align) = (first, Some(align));
        rest = chars.as_str();
    } else if let Some(align) = first.filter(|c| "<>^=".contains(*c)) {
        layout.align = Some(align);
        rest = &rest[1..];
    }
    let mut take = |set: &str| {
        let found = rest.chars().next().filter(|c| set.contains(*c));
        rest = &rest[found.map_or(0, char::len_utf8)..];
        found
    };
    layout.sign = take("+- ").filter(|sign| *sign != '-');
    layout.alternate = take("#").is_some();
    layout.zeros = take("0").is_some();
    let mut digits = String::new();
    while let Some(digit) = take("0123456789") {
        digits.push(digit);
    }
    if !digits.is_empty() {
        layout.width = counted(&digits)?;
    }
    layout.grouping = take(",_");
    if take(".").is_some() {
        digits.clear();
        while let Some(digit) = take("0123456789") {
            digits.push(digit);
        }
        layout.precision = Some(counted(&digits)?);
    }
    layout.kind = take("bcdeEfFgGnosxX%");
    if !rest.is_empty() {
        return Err(fault(format!("Invalid format specifier '{specification}'")));
    }
    let unknown = |kind: char| fault(format!("Unknown format code '{kind}' for object of type '{}'", type_name(value)));
    Ok(match (value.kind(), layout.kind) {
        (ValueKind::String, None | Some('s')) => {
            // printf puts a text to the right, format to the left.
            layout.align = layout.align.or(Some('<'));
            layout.text(value.as_str().unwrap_or_default())
        }
        (ValueKind::Number | ValueKind::Bool, kind) => match (number(value), kind) {
            (Some(Number::Integer(n)), None | Some('d' | 'n')) => layout.integer(n),
            (Some(Number::Integer(n)), Some(kind @ ('b' | 'o' | 'x' | 'X'))) => layout.based(n, kind),
            (Some(Number::Integer(n)), Some('c')) => layout.text(&character(n)?),
            (Some(Number::Float(x)), None) if layout.precision.is_none() => layout.number(float(x)),
            (Some(n), Some('%')) => {
                let text = layout.digits(n.as_float() * 100.0, 'f');
                layout.number(text + "%")
            }
            (Some(n), kind @ (None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n'))) => {
                layout.real(n.as_float(), kind.filter(|kind| *kind != 'n').unwrap_or('g'))
            }
            (_, kind) => return Err(unknown(kind.unwrap_or('?'))),
        },
        (_, kind) => match kind {
            Some(kind) => return Err(unknown(kind)),
            None => return Err(fault(format!("unsupported format string passed to {}.__format__", type_name(value)))),
        },
    })
}

impl Layout {
    fn text(&self, text: &str) -> String {
        let text = match self.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.to_owned(),
        };
        self.pad(String::new(), text, self.align.unwrap_or('>'))
    }
    fn number(&self, digits: String) -> String {
        let (sign, digits) = match digits.strip_prefix('-') {
            Some(rest) => ("-".to_owned(), rest.to_owned()),
            None => (self.sign.map(String::from).unwrap_or_default(), digits),
        };
        let align = self.align.unwrap_or(if self.zeros { '=' } else { '>' });
        self.pad(sign, digits, align)
    }
    fn integer(&self, n: i128) -> String {
        let mut digits = n.unsigned_abs().to_string();
        if let Some(least) = self.precision {
            digits.insert_str(0, &"0".repeat(least.saturating_sub(digits.len())));
        }
        let digits = self.grouped(digits);
        self.number(if n < 0 { format!("-{digits}") } else { digits })
    }
    fn based(&self, n: i128, kind: char) -> String {
        let magnitude = n.unsigned_abs();
        let (prefix, digits) = match kind {
            'b' => ("0b", format!("{magnitude:b}")),
            'o' => ("0o", format!("{magnitude:o}")),
            'x' => ("0x", format!("{magnitude:x}")),
            _ => ("0X", format!("{magnitude:X}")),
        };
        let prefix = if self.alternate { prefix } else { "" };
        self.number(format!("{}{prefix}{digits}", if n < 0 { "-" } else { "" }))
    }
    fn real(&self, x: f64, kind: char) -> String {
        let digits = self.digits(x, kind);
        let grouped = match digits.split_once('.') {
            Some((whole, part)) => format!("{}.{part}", self.grouped(whole.to_owned())),
            None => self.grouped(digits),
        };
        self.number(grouped)
    }
    fn grouped(&self, digits: String) -> String {
        let Some(mark) = self.grouping else { return digits };
        let (sign, plain) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
        let mut out = sign.to_owned();
        for (index, digit) in plain.chars().enumerate() {
            if index > 0 && (plain.len() - index) % 3 == 0 {
                out.push(mark);
            }
            out.push(digit);
        }
        out
    }
    fn digits(&self, x: f64, kind: char) -> String {
        let lower = if !x.is_finite() {
            float(x)
        } else {
            let precision = self.precision.unwrap_or(6).min(1 << 12);
            match kind.to_ascii_lowercase() {
                'f' => format!("{x:.precision$}"),
                'e' => exponent(&format!("{x:.precision$e}")),
                _ => {
                    let precision = precision.max(1);
                    let scientific = format!("{x:.*e}", precision - 1);
                    let power: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
                    if power < -4 || power >= precision as i32 {
                        let (digits, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
                        exponent(&format!("{}e{power}", short(digits)))
                    } else {
                        let places = (precision as i32 - 1 - power).max(0) as usize;
                        short(&format!("{x:.places$}")).to_owned()
                    }
                }
            }
        };
        if kind.is_ascii_uppercase() { lower.to_uppercase() } else { lower }
    }
    fn pad(&self, sign: String, text: String, align: char) -> String {
        let missing = self.width.saturating_sub(sign.chars().count() + text.chars().count());
        let fill = self.fill.unwrap_or(if self.zeros && align == '=' { '0' } else { ' ' });
        let some = |count: usize| fill.to_string().repeat(count);
        match align {
            '<' => sign + &text + &some(missing),
            '^' => some(missing / 2) + &sign + &text + &some(missing - missing / 2),
            '=' => sign + &some(missing) + &text,
            _ => some(missing) + &sign + &text,
        }
    }
}

/// Without the zeros at the end of a fraction.
fn short(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// Rust writes `1e5`, Python `1e+05`.
fn exponent(text: &str) -> String {
    let (digits, power) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |rest| ('-', rest));
    format!("{digits}e{sign}{power:0>2}")
}

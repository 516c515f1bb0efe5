//! S-expressions, as PDDL is written in them.

/// Deepest nesting that is read.
const DEPTH: usize = 64;

/// An atom, lower-cased, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Atom(String),
    List(Vec<Expression>),
}

impl Expression {
    /// Reads the first expression of a text; `;` starts a comment.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut open: Vec<Vec<Expression>> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split(';').next().unwrap_or_default();
            let mut rest = line.trim_start();
            while let Some(first) = rest.chars().next() {
                match first {
                    '(' if open.len() == DEPTH => {
                        return Err(format!("line {}: nested deeper than {DEPTH}", number + 1));
                    }
                    '(' => open.push(Vec::new()),
                    ')' => {
                        let done = open.pop().ok_or_else(|| format!("line {}: `)` without `(`", number + 1))?;
                        match open.last_mut() {
                            Some(outer) => outer.push(Self::List(done)),
                            None => return Ok(Self::List(done)),
                        }
                    }
                    _ => {
                        let end = rest.find(|c: char| c == '(' || c == ')' || c.is_whitespace()).unwrap_or(rest.len());
                        let list = open.last_mut().ok_or_else(|| format!("line {}: text before `(`", number + 1))?;
                        list.push(Self::Atom(rest[..end].to_lowercase()));
                        rest = rest[end..].trim_start();
                        continue;
                    }
                }
                rest = rest[1..].trim_start();
            }
        }
        Err("`)` is missing at the end".into())
    }

    pub(crate) fn atom(&self) -> Option<&str> {
        match self {
            Self::Atom(text) => Some(text),
            Self::List(_) => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Expression]> {
        match self {
            Self::List(items) => Some(items),
            Self::Atom(_) => None,
        }
    }

    /// The list's first item, an atom, and the others.
    pub(crate) fn headed(&self) -> Option<(&str, &[Expression])> {
        let (head, rest) = self.list()?.split_first()?;
        Some((head.atom()?, rest))
    }
}

/// `name… - type` lists: names with their types.
pub(crate) fn typed(items: &[Expression]) -> Result<Vec<(String, String)>, String> {
    let (mut out, mut waiting) = (Vec::new(), Vec::new());
    let mut items = items.iter();
    while let Some(item) = items.next() {
        let name = item.atom().ok_or("a list where a name was expected")?;
        if name == "-" {
            let of = items.next().and_then(Expression::atom).ok_or("no type after `-`")?;
            out.extend(waiting.drain(..).map(|name: String| (name, of.to_owned())));
        } else {
            waiting.push(name.to_owned());
        }
    }
    out.extend(waiting.into_iter().map(|name| (name, "object".to_owned())));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_without_comments() {
        let read = Expression::read("; first\n(And (p ?X) ; no (q)\n ())").unwrap();
        let (head, rest) = read.headed().unwrap();
        assert_eq!((head, rest.len()), ("and", 2));
        assert_eq!(rest[0], Expression::List(vec![Expression::Atom("p".into()), Expression::Atom("?x".into())]));
        for broken in ["", "(a", "a)", ")", &"(".repeat(99)] {
            Expression::read(broken).unwrap_err();
        }
    }

    #[test]
    fn types_bind_backwards() {
        let Expression::List(items) = Expression::read("(?a ?b - t, ?c)").unwrap() else { panic!() };
        let typed = typed(&items).unwrap();
        assert_eq!(typed, [("?a", "t,"), ("?b", "t,"), ("?c", "object")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}

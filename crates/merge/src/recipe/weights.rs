//! How much tokens of a calibration set count.

/// What tokens are.
pub(super) const TOKENS: [&str; 3] = ["role", "reply", "context"];

/// How much tokens count, by what they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenWeights {
    /// Those of role spans.
    pub role: f64,
    /// Others of the model's replies.
    pub reply: f64,
    /// Those that it only reads.
    pub context: f64,
}

impl Default for TokenWeights {
    fn default() -> Self {
        Self { role: 1.0, reply: 1.0, context: 1.0 }
    }
}

impl std::fmt::Display for TokenWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "role={},reply={},context={}", self.role, self.reply, self.context)
    }
}

impl std::str::FromStr for TokenWeights {
    type Err = String;

    /// Reads `role=1,reply=1,context=0.3`; what is not named counts 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(|part| {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not KIND=WEIGHT"))?;
            Ok((key.trim(), value.trim().parse().ok()))
        });
        weigh(entries.collect::<Result<Vec<_>, String>>()?)
    }
}

/// Weights by the kinds of tokens; what is not named counts 1.
pub(super) fn weigh<'e>(entries: impl IntoIterator<Item = (&'e str, Option<f64>)>) -> Result<TokenWeights, String> {
    let (mut weights, mut said) = (TokenWeights::default(), Vec::new());
    for (key, value) in entries {
        if said.contains(&key) {
            return Err(format!("`{key}` is weighed twice"));
        }
        said.push(key);
        let place = match key {
            "role" => &mut weights.role,
            "reply" => &mut weights.reply,
            "context" => &mut weights.context,
            _ => return Err(format!("tokens are weighed by {}{}", TOKENS.join(", "), crate::nearest(key, &TOKENS))),
        };
        let value = value.filter(|weight| weight.is_finite() && *weight >= 0.0);
        *place = value.ok_or_else(|| format!("the weight of `{key}` must be a number of 0 or more"))?;
    }
    if weights.role + weights.reply + weights.context == 0.0 {
        return Err("all weights are 0; then no token counts".into());
    }
    Ok(weights)
}

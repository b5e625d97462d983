//! What an unquoted YAML scalar means.
//!
//! Kubernetes reads manifests with sigs.k8s.io/yaml, whose go-yaml v2 resolves
//! YAML 1.1 scalars: `on`, `yes` and `y` are booleans, `010` is 8. Reading them
//! otherwise would give one file two meanings. Text in, value out.

/// A scalar's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar {
    /// Nothing, `~`, `null`.
    Null,
    /// A boolean of YAML 1.1.
    Bool(bool),
    /// A whole number; go-yaml has int64 and uint64.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// The text itself.
    Text,
}

impl Scalar {
    /// Resolves a plain scalar (go-yaml v2 `resolve.go`, without timestamps, which stay text).
    pub(super) fn plain(text: &str) -> Self {
        match text.as_bytes().first() {
            None => Self::Null,
            Some(b'~' | b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O') => {
                word(text)
            }
            Some(b'.') => match text {
                ".nan" | ".NaN" | ".NAN" => Self::Float(f64::NAN),
                ".inf" | ".Inf" | ".INF" => Self::Float(f64::INFINITY),
                _ => text.parse().map_or(Self::Text, Self::Float),
            },
            Some(b'+' | b'-' | b'0'..=b'9') => number(text),
            Some(_) => Self::Text,
        }
    }

    /// What to call it in a message.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text => "a string",
        }
    }
}

fn word(text: &str) -> Scalar {
    match text {
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Scalar::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        _ => Scalar::Text,
    }
}

fn number(text: &str) -> Scalar {
    match text {
        "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let plain = text.replace('_', "");
    if let Some(value) = integer(&plain) {
        return Scalar::Int(value);
    }
    if looks_like_a_float(&plain) {
        return plain.parse().map_or(Scalar::Text, Scalar::Float);
    }
    Scalar::Text
}

/// Go's `strconv.ParseInt(text, 0, 64)`, then `ParseUint`: a leading `0` is octal.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // from_str_radix would take a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -value } else { value };
    (value >= i128::from(i64::MIN)).then_some(value)
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn looks_like_a_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if whole == 0 && count == 0 {
            return false;
        }
        rest = &fraction[count..];
    } else if whole == 0 {
        return false;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    //! The table of go-yaml v2.
    use super::*;

    #[test]
    fn resolves_as_go_yaml_does() {
        for (text, expected) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("null", Scalar::Null),
            ("nULL", Scalar::Text),
            ("on", Scalar::Bool(true)),
            ("Yes", Scalar::Bool(true)),
            ("y", Scalar::Bool(true)),
            ("n", Scalar::Bool(false)),
            ("OFF", Scalar::Bool(false)),
            ("oN", Scalar::Text),
            ("0", Scalar::Int(0)),
            ("80", Scalar::Int(80)),
            ("-1", Scalar::Int(-1)),
            ("+7", Scalar::Int(7)),
            ("010", Scalar::Int(8)),
            ("0o10", Scalar::Int(8)),
            ("0x10", Scalar::Int(16)),
            ("0b11", Scalar::Int(3)),
            ("1_000", Scalar::Int(1000)),
            ("080", Scalar::Float(80.0)),
            ("18446744073709551615", Scalar::Int(i128::from(u64::MAX))),
            (
                "18446744073709551616",
                Scalar::Float(18_446_744_073_709_551_616.0),
            ),
            ("-9223372036854775808", Scalar::Int(i128::from(i64::MIN))),
            ("1.5", Scalar::Float(1.5)),
            ("1.", Scalar::Float(1.0)),
            (".5", Scalar::Float(0.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("-.inf", Scalar::Float(f64::NEG_INFINITY)),
            ("1e", Scalar::Text),
            ("+", Scalar::Text),
            ("-", Scalar::Text),
            ("--1", Scalar::Text),
            ("+-1", Scalar::Text),
            ("0x", Scalar::Text),
            ("0x-1", Scalar::Text),
            (".", Scalar::Text),
            ("10.0.0.1", Scalar::Text),
            ("2024-01-01T00:00:00Z", Scalar::Text),
            ("tcp", Scalar::Text),
            ("80é", Scalar::Text),
            ("0é", Scalar::Text),
        ] {
            assert_eq!(Scalar::plain(text), expected, "{text:?}");
        }
    }
}

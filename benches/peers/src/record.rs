//! What the workers print: a word that says what it is, and numbers with their names.

/// Declares a struct of numbers that is printed as one line (`point ops=1 live=2`), and parsed
/// from it.
macro_rules! record {
    (
        $(#[$about:meta])*
        $tag:literal $name:ident { $($(#[$field_about:meta])* $field:ident,)* }
    ) => {
        $(#[$about])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize,
        )]
        pub struct $name {
            $($(#[$field_about])* pub $field: u64,)*
        }

        impl $name {
            /// Reads the line that `Display` writes.
            pub fn parse(line: &str) -> Option<Self> {
                let mut words = line.split_whitespace();
                if words.next()? != $tag {
                    return None;
                }
                let record = Self {
                    $($field: words
                        .next()?
                        .strip_prefix(concat!(stringify!($field), "="))?
                        .parse()
                        .ok()?,)*
                };
                words.next().is_none().then_some(record)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($tag)?;
                $(write!(f, concat!(" ", stringify!($field), "={}"), self.$field)?;)*
                Ok(())
            }
        }
    };
}

pub(crate) use record;

#[cfg(test)]
mod tests {
    record! {
        "pair" Pair {
            left,
            right,
        }
    }

    #[test]
    fn records_are_parsed_as_printed() {
        let pair = Pair { left: 1, right: 2 };
        assert_eq!(pair.to_string(), "pair left=1 right=2");
        assert_eq!(Pair::parse(&pair.to_string()), Some(pair));
        for line in ["", "pair", "pair left=1", "pair right=1 left=2", "pair left=1 right=x"] {
            assert_eq!(Pair::parse(line), None);
        }
        assert_eq!(Pair::parse("pair left=1 right=2 more=3"), None);
        assert_eq!(Pair::parse("other left=1 right=2"), None);
    }
}

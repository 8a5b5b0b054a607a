//! Leaks as text.

use super::leaks::{Group, Leaks, Reach};
use super::stack_names;
use super::symbols::Symbols;
use std::fmt::Write;

/// Places of one kind that are shown unless all are wanted.
const PLACES: usize = 20;
/// Frames of a stack that are shown.
const FRAMES: usize = 16;

impl Leaks {
    /// What is live, place by place: first what is lost, then what is lost through it, then what can still
    /// be reached, of each kind the largest first; the 20 largest, or `all`.
    pub fn text(&self, all: bool) -> String {
        let symbols = Symbols::new();
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string does not fail.
        let _ = self.write(&mut text, &symbols, all);
        text
    }

    /// One line that says how much there is.
    pub fn summary(&self) -> String {
        let places = self.groups.iter().filter(|group| group.reach == Reach::Lost).count();
        let (direct, through) = (self.sum(Reach::Lost), self.sum(Reach::LostThrough));
        let lost = (direct.0 + through.0, direct.1 + through.1);
        let mut line = match lost {
            (0, _) => "nothing is lost".to_owned(),
            _ => format!("{} lost, from {}", amount(lost), count(places, "place")),
        };
        match self.sum(Reach::Reachable) {
            (0, _) => line.push_str("; nothing else is live"),
            live => {
                let _ = write!(line, "; {} can still be reached", amount(live));
            }
        }
        line
    }

    fn write(&self, out: &mut String, symbols: &Symbols, all: bool) -> std::fmt::Result {
        writeln!(out, "{}", self.summary())?;
        if self.unheld > 0 {
            let threads = count(self.unheld, "thread");
            writeln!(
                out,
                "{threads} could not be held still: what only registers there lead to is called lost"
            )?;
        }
        if !self.complete {
            writeln!(out, "there was no memory to look at every block: some are missing")?;
        }
        for reach in [Reach::Lost, Reach::LostThrough, Reach::Reachable] {
            let groups: Vec<&Group> = self.groups.iter().filter(|g| g.reach == reach).collect();
            let shown = if all { groups.len() } else { groups.len().min(PLACES) };
            for group in &groups[..shown] {
                group.write(out, symbols)?;
            }
            let rest = groups[shown..]
                .iter()
                .fold((0, 0), |(n, bytes), group| (n + group.blocks, bytes + group.bytes));
            if rest.0 > 0 {
                let places = count(groups.len() - shown, "further place");
                writeln!(
                    out,
                    "\n{}: {} from {places} (leaks=all shows them)",
                    reach.name(),
                    amount(rest)
                )?;
            }
        }
        Ok(())
    }
}

impl Reach {
    fn name(self) -> &'static str {
        match self {
            Reach::Lost => "lost",
            Reach::LostThrough => "lost through another block",
            Reach::Reachable => "reachable",
        }
    }
}

impl Group {
    fn write(&self, out: &mut String, symbols: &Symbols) -> std::fmt::Result {
        write!(out, "\n{}: {}", self.reach.name(), amount((self.blocks, self.bytes)))?;
        if self.through.0 > 0 {
            write!(
                out,
                ", and through {} {}",
                if self.blocks == 1 { "it" } else { "them" },
                amount(self.through)
            )?;
        }
        writeln!(out, ", allocated by")?;
        if self.stack == 0 {
            return writeln!(out, "    an unknown place, such as {:#x}", self.example);
        }
        for line in stack_names::lines(symbols, self.stack, FRAMES) {
            writeln!(out, "    {line}")?;
        }
        Ok(())
    }
}

fn amount((blocks, bytes): (usize, usize)) -> String {
    format!("{} of {}", count(blocks, "block"), count(bytes, "byte"))
}

fn count(n: usize, what: &str) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(reach: Reach, blocks: usize, bytes: usize) -> Group {
        Group { reach, stack: 0, blocks, bytes, through: (0, 0), example: 0x1000 }
    }

    #[test]
    fn it_says_how_much() {
        let clean = Leaks { complete: true, ..Leaks::default() };
        assert_eq!(clean.text(false), "nothing is lost; nothing else is live\n");
        let groups = vec![
            Group { through: (2, 30), ..group(Reach::Lost, 1, 1_234_567) },
            group(Reach::LostThrough, 2, 30),
            group(Reach::Reachable, 1, 1),
        ];
        let leaks = Leaks { groups, unheld: 1, complete: true };
        assert!(!leaks.is_clean() && clean.is_clean());
        assert_eq!(
            leaks.text(false),
            "3 blocks of 1,234,597 bytes lost, from 1 place; 1 block of 1 byte can still be reached\n\
             1 thread could not be held still: what only registers there lead to is called lost\n\
             \n\
             lost: 1 block of 1,234,567 bytes, and through it 2 blocks of 30 bytes, allocated by\n    \
             an unknown place, such as 0x1000\n\
             \n\
             lost through another block: 2 blocks of 30 bytes, allocated by\n    \
             an unknown place, such as 0x1000\n\
             \n\
             reachable: 1 block of 1 byte, allocated by\n    \
             an unknown place, such as 0x1000\n"
        );
    }

    #[test]
    fn the_largest_unless_all_are_wanted() {
        let groups = (0..50).map(|n| group(Reach::Reachable, 2, 100 - n)).collect();
        let leaks = Leaks { groups, unheld: 0, complete: false };
        let text = leaks.text(false);
        assert_eq!(text.matches("\nreachable: ").count(), 21);
        assert!(text.contains("60 blocks of 1,965 bytes from 30 further places"), "{text}");
        assert!(text.contains("no memory to look at every block"));
        assert_eq!(leaks.text(true).matches("\nreachable: ").count(), 50);
    }
}

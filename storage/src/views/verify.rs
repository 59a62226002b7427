//! Compares two sets of rows: what is stored with what the journal comes to.

use super::seen;
use crate::layout::Table;
use crate::rows::{Row, Rows, RowsError};

const PAGE_ROWS: usize = 512;

/// The first row that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("view {table} row {key}: {what}", table = table.name())]
pub struct Difference {
    /// Which view.
    pub table: Table,
    /// Which row, in hex.
    pub key: String,
    /// In which way.
    pub what: &'static str,
}

/// Compares every row of every view, and of the exactly-once index every id; gives the number compared, or the
/// first difference.
///
/// # Errors
///
/// [`RowsError`] if either cannot be read.
pub fn compare(stored: &dyn Rows, folded: &dyn Rows) -> Result<Result<u64, Difference>, RowsError> {
    let mut compared = 0;
    for table in Table::ALL {
        if table == Table::Seen {
            match seen::compare(stored, folded)? {
                Ok(ids) => compared += ids,
                Err(difference) => return Ok(Err(difference)),
            }
            continue;
        }
        let (mut left, mut right) = (Cursor::new(stored, table), Cursor::new(folded, table));
        loop {
            let (key, what) = match (left.next()?, right.next()?) {
                (None, None) => break,
                (Some(l), Some(r)) if l == r => {
                    compared += 1;
                    continue;
                }
                (Some((l, _)), Some((r, _))) if l == r => (l, "differs from what the journal comes to"),
                (Some((l, _)), Some((r, _))) if l > r => (r, "is missing, the journal has it"),
                (None, Some((r, _))) => (r, "is missing, the journal has it"),
                (Some((l, _)), _) => (l, "is stored, but the journal does not have it"),
            };
            let key = key.iter().map(|b| format!("{b:02x}")).collect();
            return Ok(Err(Difference { table, key, what }));
        }
    }
    Ok(Ok(compared))
}

struct Cursor<'a> {
    rows: &'a dyn Rows,
    table: Table,
    page: std::vec::IntoIter<Row>,
    from: Option<Vec<u8>>,
}

impl<'a> Cursor<'a> {
    fn new(rows: &'a dyn Rows, table: Table) -> Self {
        Cursor { rows, table, page: Vec::new().into_iter(), from: Some(Vec::new()) }
    }

    fn next(&mut self) -> Result<Option<Row>, RowsError> {
        if let Some(row) = self.page.next() {
            return Ok(Some(row));
        }
        let Some(from) = self.from.take() else { return Ok(None) };
        let page = self.rows.scan(self.table, &from, PAGE_ROWS)?;
        self.from = page.last().map(|(key, _)| [key, &[0][..]].concat());
        self.page = page.into_iter();
        Ok(self.page.next())
    }
}

//! Recorded traffic, from a file. The head of the example documents its format.

use crate::quantity::{self, Nanos};

/// One request of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) line: usize,
    pub(crate) at: Nanos,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// The text that tells the client from others; if the text is empty, nobody knows who the client is.
    pub(crate) client: &'a str,
    pub(crate) plan: Option<&'a str>,
}

const COLUMNS: [&str; 5] = ["seconds", "method", "path", "client", "plan"];

/// Reads all rows, in the order of their times.
pub(crate) fn read(text: &str) -> Result<Vec<Row<'_>>, String> {
    let mut lines = (1..).zip(text.lines());
    let (_, head) = lines.next().ok_or("line 1: expected a header line")?;
    let head: Vec<&str> = head.split(',').map(str::trim).collect();
    if head != COLUMNS[..4] && head != COLUMNS {
        let (columns, plan) = (COLUMNS[..4].join(","), COLUMNS[4]);
        return Err(format!(
            "line 1: expected the header `{columns}`, or with `,{plan}` after it"
        ));
    }
    let mut rows = Vec::new();
    for (number, line) in lines {
        if line.trim().is_empty() {
            continue;
        }
        rows.push(
            row(number, line, head.len()).map_err(|error| format!("line {number}: {error}"))?,
        );
    }
    // Those of one moment stay in their order.
    rows.sort_by_key(|row| row.at);
    Ok(rows)
}

fn row(number: usize, line: &str, columns: usize) -> Result<Row<'_>, String> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    if cells.len() != columns {
        return Err(format!("expected {columns} cells, found {}", cells.len()));
    }
    let at = cells[0].parse().ok().and_then(quantity::nanos);
    let at = at.ok_or_else(|| format!("`{}`: expected seconds since the beginning", cells[0]))?;
    let (method, path) = (cells[1], cells[2]);
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(format!("`{method}`: expected a method"));
    }
    if !path.starts_with('/') {
        return Err(format!("`{path}`: expected a path that begins with `/`"));
    }
    Ok(Row {
        line: number,
        at,
        method,
        path,
        client: cells[3],
        plan: cells.get(4).copied().filter(|plan| !plan.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_brought_into_order() {
        let text = "seconds,method,path,client\n1.5,GET,/a,x\n\n0.25, POST, /b?c=d, \n";
        let rows = read(text).expect("a trace");
        let row = |line, at, method, path, client| Row {
            line,
            at,
            method,
            path,
            client,
            plan: None,
        };
        assert_eq!(
            rows,
            [
                row(4, 250_000_000, "POST", "/b?c=d", ""),
                row(2, 1_500_000_000, "GET", "/a", "x"),
            ]
        );
        let text = "seconds,method,path,client,plan\r\n1,GET,/a,x,pro\r\n2,GET,/a,y,\r\n";
        let plans = read(text).expect("a trace").into_iter().map(|row| row.plan);
        assert_eq!(plans.collect::<Vec<_>>(), [Some("pro"), None]);
    }

    #[test]
    fn an_error_names_its_line() {
        let head = "seconds,method,path,client\n";
        // (rows, what is said)
        let table = [
            ("1,GET,/a", "line 2: expected 4 cells, found 3"),
            (
                "1,GET,/a,x\n1,GET,/a,x,y",
                "line 3: expected 4 cells, found 5",
            ),
            (
                "\n\nx,GET,/a,x",
                "line 4: `x`: expected seconds since the beginning",
            ),
            (
                "-1,GET,/a,x",
                "line 2: `-1`: expected seconds since the beginning",
            ),
            ("1,G T,/a,x", "line 2: `G T`: expected a method"),
            (
                "1,GET,a,x",
                "line 2: `a`: expected a path that begins with `/`",
            ),
        ];
        for (rows, expected) in table {
            assert_eq!(read(&format!("{head}{rows}\n")), Err(expected.to_owned()));
        }
        for text in ["", "seconds,path,method,client\n", "1,GET,/a,x\n"] {
            let error = read(text).expect_err("no header");
            assert!(error.starts_with("line 1: expected "), "{error}");
        }
    }
}

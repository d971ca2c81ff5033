//! Lists that are read in pages, from the first to the last.

/// Items of one page.
pub const PAGE_MAX: i64 = 500;

/// All items of a list. `page_after` reads the page after an item, or the first one; an empty page is the end.
///
/// # Errors
/// That of the first page that could not be read.
pub async fn read_all<Item, Id, Error, Page>(
    id_of: impl Fn(&Item) -> Id,
    page_after: impl Fn(Option<Id>) -> Page,
) -> Result<Vec<Item>, Error>
where
    Page: Future<Output = Result<Vec<Item>, Error>>,
{
    let mut all: Vec<Item> = Vec::new();
    loop {
        let page = page_after(all.last().map(&id_of)).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;

    use super::read_all;

    #[tokio::test]
    async fn each_page_begins_after_the_last_item_of_the_one_before() {
        let asked = RefCell::new(Vec::new());
        let page_after = |after: Option<u32>| {
            asked.borrow_mut().push(after);
            let first = after.map_or(1, |last| last + 1);
            ready(Ok::<_, String>((first..=5).take(2).collect::<Vec<_>>()))
        };
        let all = read_all(|item: &u32| *item, page_after).await;
        assert_eq!(all, Ok(vec![1, 2, 3, 4, 5]));
        assert_eq!(asked.into_inner(), [None, Some(2), Some(4), Some(5)]);
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_read_ends_the_list() {
        let page_after = |after: Option<u32>| ready(if after.is_none() { Ok(vec![1]) } else { Err("the database") });
        assert_eq!(read_all(|item: &u32| *item, page_after).await, Err("the database"));
    }
}

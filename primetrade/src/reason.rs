use command_api::refusal;
use commands::ExecuteError;
use commands::identity::IdentityFrom;
use http_api::problem::Problem;
use task_files::LineError;

/// Of a line that was rejected.
pub fn of_line_error(error: LineError) -> String {
    match error {
        LineError::Cut(error) => error.to_string(),
        LineError::Row(error) => error.to_string(),
        LineError::Parse(error) => of_problem(&refusal::parse_problem(error)),
        LineError::Execute(error) => of_error(error),
    }
}

/// Of a command that was not carried out.
pub fn of_error(error: ExecuteError) -> String {
    of_problem(&refusal::problem(error, IdentityFrom::CommandId))
}

/// In one line: what is wrong, where, and the code that the API would give.
fn of_problem(problem: &Problem) -> String {
    let places: Vec<String> = problem
        .errors()
        .iter()
        .map(|error| format!("{} {}", error.pointer.trim_start_matches('/'), error.detail))
        .collect();
    let said = match (places.is_empty(), problem.detail_text()) {
        (false, _) => places.join("; "),
        (true, Some(detail)) => detail.trim_end_matches('.').to_owned(),
        (true, None) => problem.code().title().to_owned(),
    };
    format!("{said} [{} {}]", problem.status().as_u16(), problem.code())
}

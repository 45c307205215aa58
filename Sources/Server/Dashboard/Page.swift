/// The dashboard's files, which the build embeds.
enum DashboardFile: String, CaseIterable {
    case page = ""
    case style = "dashboard.css"
    case script = "dashboard.js"
    case api = "api.js"
    case task = "task.js"
    case steps = "steps.js"

    var response: HTTPResponse {
        switch self {
        case .page: DashboardFile.answer("text/html", PackageResources.index_html)
        case .style: DashboardFile.answer("text/css", PackageResources.dashboard_css)
        case .script: DashboardFile.answer("text/javascript", PackageResources.dashboard_js)
        case .api: DashboardFile.answer("text/javascript", PackageResources.api_js)
        case .task: DashboardFile.answer("text/javascript", PackageResources.task_js)
        case .steps: DashboardFile.answer("text/javascript", PackageResources.steps_js)
        }
    }

    private static func answer(_ type: String, _ bytes: [UInt8]) -> HTTPResponse {
        let headers = [
            ("Content-Type", type + "; charset=utf-8"), ("Cache-Control", "no-cache"),
            ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
            (
                "Content-Security-Policy",
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
                    + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
        ]
        return HTTPResponse(200, headers: headers, body: .bytes(bytes))
    }
}

import Supervision

extension NodeAPI {
    func pulseStatus() async -> HTTPResponse { .json(200, PulseView(await pulse.current)) }

    /// Runs a round now; with `dry_run` it only looks.
    func pulseRound(_ request: HTTPRequest) async -> HTTPResponse {
        let isDry = request.parameter("dry_run").map { $0 != "0" } ?? false
        guard let decisions = await pulse.round(isDry: isDry) else {
            return .retryLater(409, ErrorView("A round of the pulse is under way, or the node is stopping."), after: 10)
        }
        return .json(200, PulseView(await pulse.current, decisions: decisions))
    }
}

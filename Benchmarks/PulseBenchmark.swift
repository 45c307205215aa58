import TestSupport

/// A fleet in virtual time: 100 nodes, 1,000 issues, one repository. Counts every request; that many of the lists are answered
/// with 304, which GitHub doesn't count, is left out, so the real figure is lower.
func benchmarkPulse(_ table: Table) throws {
    for (nodes, issues) in [(2, 50), (10, 200), (100, 1000)] {
        var options = PulseSimulation.Options()
        options.nodes = nodes
        options.issues = issues
        options.slots = 2
        options.hours = 24
        let report = try PulseSimulation(options).run()
        let name = "\(nodes) nodes, \(issues) issues"
        table.add("pulse", "\(name): worked twice", Double(report.workedTwiceAtOnce), "")
        table.add("pulse", "\(name): succeeded", Double(report.succeeded), "")
        table.add("pulse", "\(name): claims posted", Double(report.claimsPosted), "")
        table.add("pulse", "\(name): claims lost", Double(report.claimsLost), "")
        let perHour = Double(report.requests) / Double(nodes) / max(report.hours, 0.01)
        table.add("pulse", "\(name): requests an hour and node", perHour, "")
        table.add("pulse", "\(name): requests an issue", Double(report.requests) / Double(issues), "")
        table.add("pulse", "\(name): to an issue's start, p50", percentile(report.startTimes, 0.5), "s")
        table.add("pulse", "\(name): to an issue's start, p99", percentile(report.startTimes, 0.99), "s")
        table.add("pulse", "\(name): all done after", report.hours, "h")
    }
}

import Supervision

extension NodeAPI {
    /// The Prometheus text format, version 0.0.4.
    func metrics() async -> HTTPResponse {
        var text = MetricsText()
        let status = await supervisor.status()
        let counters = await supervisor.counters
        text.gauge("aidevops_build_info", "What runs here.", [(["version": settings.version], 1)])
        text.gauge("aidevops_uptime_seconds", "Time since the start.", [([:], status.uptime.seconds)])
        let active = await supervisor.active()
        let states = TaskState.allCases.filter { !$0.isEnded }
        text.gauge(
            "aidevops_tasks", "Tasks that haven't ended, by state.",
            states.map { state in (["state": state.rawValue], Double(active.count { $0.state == state })) })
        text.gauge("aidevops_slots", "Most workers at once.", [([:], Double(status.max))])
        text.gauge("aidevops_slots_taken", "Slots that tasks hold.", [([:], Double(status.active))])
        text.gauge("aidevops_queue_length", "Tasks that wait for a slot.", [([:], Double(status.queued))])
        text.gauge(
            "aidevops_degraded", "1 when something keeps the node from its work.",
            [([:], status.degraded.isEmpty ? 0 : 1)])
        text.counter(
            "aidevops_dispatches_total", "Dispatches, by what came of them.",
            [(["result": "accepted"], Double(counters.dispatched)), (["result": "refused"], Double(counters.refused))])
        text.counter(
            "aidevops_tasks_ended_total", "Ended tasks, by state.",
            TaskState.allCases.filter(\.isEnded).map { (["state": $0.rawValue], Double(counters.ended[$0] ?? 0)) })
        text.counter("aidevops_restarts_total", "Attempts that followed another.", [([:], Double(counters.restarts))])
        text.counter(
            "aidevops_tokens_total", "Tokens that agents told of.",
            [(["kind": "input"], Double(counters.inputTokens)), (["kind": "output"], Double(counters.outputTokens))])
        text.counter("aidevops_cost_usd_total", "Cost that agents told of.", [([:], counters.costUSD)])
        let logs = await supervisor.logFigures()
        text.counter("aidevops_log_received_bytes_total", "Output of workers.", [([:], Double(logs.receivedBytes))])
        text.counter("aidevops_log_lines_total", "Lines of all logs.", [([:], Double(logs.lines))])
        text.counter(
            "aidevops_log_unstored_bytes_total", "Left out of log files because the disk didn't take them.",
            [([:], Double(logs.unstoredBytes))])
        text.counter(
            "aidevops_log_missed_lines_total", "Lines that followers of logs were too slow for.",
            [([:], Double(missedLines))])
        text.histogram("aidevops_task_duration_seconds", "From dispatch to end.", [([:], counters.durations)])
        text.counter(
            "aidevops_http_requests_total", "Answered requests, by route and code.",
            zip(Route.Match.names, requestFigures).flatMap { name, figures in
                figures.counts.sorted { $0.status < $1.status }.map {
                    (["route": name, "code": String($0.status)], Double($0.count))
                }
            })
        text.histogram(
            "aidevops_http_request_seconds", "Time to the answer, by route; a stream's until its start.",
            zip(Route.Match.names, requestFigures).filter { !$1.counts.isEmpty && $0 != "invalid" }.map {
                (["route": $0], $1.times)
            })
        let process = ProcessFigures.now()
        text.gauge(
            "aidevops_event_loop_longest_turn_seconds", "The longest turn of the event loop since the last scrape.",
            [([:], supervisor.services.loop.takeLongestTurn().seconds)])
        text.gauge("process_resident_memory_bytes", "Resident memory.", [([:], Double(process.residentBytes))])
        text.gauge("process_open_fds", "Open descriptors.", [([:], Double(process.openDescriptors))])
        text.counter("process_cpu_seconds_total", "User and system CPU time.", [([:], process.cpuSeconds)])
        text.gauge(
            "aidevops_memory_available_bytes", "Memory for workers.",
            [([:], Double(status.memory.availableMB) * 1_048_576)])
        return .text(200, text.text, type: "text/plain; version=0.0.4; charset=utf-8")
    }
}

/// Writes metrics in Prometheus' text format.
struct MetricsText {
    private(set) var text = ""

    typealias Samples<Value> = [(labels: KeyValuePairs<String, String>, value: Value)]

    mutating func gauge(_ name: String, _ help: String, _ samples: Samples<Double>) {
        family(name, help, "gauge", samples)
    }
    mutating func counter(_ name: String, _ help: String, _ samples: Samples<Double>) {
        family(name, help, "counter", samples)
    }

    mutating func histogram(_ name: String, _ help: String, _ samples: Samples<Histogram>) {
        head(name, help, "histogram")
        for (labels, histogram) in samples {
            var total = 0
            for (bound, count) in zip(histogram.bounds.map { MetricsText.number($0) } + ["+Inf"], histogram.counts) {
                total += count
                line(name + "_bucket", labels.map { ($0, $1) } + [("le", bound)], Double(total))
            }
            line(name + "_sum", labels.map { ($0, $1) }, histogram.sum)
            line(name + "_count", labels.map { ($0, $1) }, Double(total))
        }
    }

    private mutating func family(_ name: String, _ help: String, _ type: String, _ samples: Samples<Double>) {
        head(name, help, type)
        for (labels, value) in samples { line(name, labels.map { ($0, $1) }, value) }
    }

    private mutating func head(_ name: String, _ help: String, _ type: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    }

    private mutating func line(_ name: String, _ labels: [(String, String)], _ value: Double) {
        let pairs = labels.map {
            "\($0)=\"\($1.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n"))\""
        }
        text += name + (pairs.isEmpty ? "" : "{\(pairs.joined(separator: ","))}") + " \(MetricsText.number(value))\n"
    }

    private static func number(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(Int(value)) : String(value)
    }
}

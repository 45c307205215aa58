extension SubCommand {
    private static let shells = ["bash", "zsh", "fish"]

    static let completions = SubCommand(
        name: "completions", operands: "bash|zsh|fish", summary: "Print what makes a shell complete this command.",
        run: { arguments in
            switch try arguments.action(shells) {
            case "bash": Terminal.out(bash)
            case "zsh": Terminal.out("#compdef aidevops-worker\nautoload -U +X bashcompinit && bashcompinit\n" + bash)
            default: Terminal.out(fish)
            }
            return 0
        })

    private var optionNames: [String] { options.flatMap { [$0.name] + ($0.short.map { [$0] } ?? []) } + ["--help"] }
    /// Operands that are words of the command itself.
    private var words: [String] { operands.split(separator: "|").map { String($0.prefix { $0 != " " }) } }

    private static var bash: String {
        let cases = all.map { command in
            let words = command.operands.contains("|") ? command.words : []
            return "        \(command.name)) words=\"\((words + command.optionNames).joined(separator: " "))\" ;;"
        }
        return """
            # Load it with: source <(aidevops-worker completions bash)
            _aidevops_worker() {
                local words current="${COMP_WORDS[COMP_CWORD]}"
                case "${COMP_CWORD}:${COMP_WORDS[1]}" in 1:*) words="\(all.map(\.name).joined(separator: " ")) --help --version" ;; *)
                case "${COMP_WORDS[1]}" in
            \(cases.joined(separator: "\n"))
                esac ;; esac
                COMPREPLY=($(compgen -W "$words" -- "$current"))
                if [ "${#COMPREPLY[@]}" -eq 0 ]; then COMPREPLY=($(compgen -f -- "$current")); fi
            }
            complete -F _aidevops_worker aidevops-worker

            """
    }

    private static var fish: String {
        var lines = ["# Load it with: aidevops-worker completions fish | source"]
        for command in all {
            let summary = command.summary.replacing("'", with: "\\'")
            lines.append("complete -c aidevops-worker -n __fish_use_subcommand -f -a \(command.name) -d '\(summary)'")
            let here = "-n '__fish_seen_subcommand_from \(command.name)'"
            for option in command.options {
                let name = "-l \(option.name.dropFirst(2))" + (option.short.map { " -s \($0.dropFirst())" } ?? "")
                let help = option.help.replacing("'", with: "\\'")
                lines.append(
                    "complete -c aidevops-worker \(here) \(name)\(option.value == nil ? "" : " -r") -d '\(help)'")
            }
            if command.operands.contains("|") {
                lines.append("complete -c aidevops-worker \(here) -f -a '\(command.words.joined(separator: " "))'")
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

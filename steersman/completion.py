"""The command `completion`: a script for a shell that knows the commands and asks for the options of one."""

import io
import re
from contextlib import redirect_stderr, redirect_stdout, suppress

from .__main__ import COMMANDS
from .errors import UserError
from .recipes import RECIPES
from .worlds import WORLDS

HELP = """usage: steersman completion bash
       steersman completion options COMMAND [NAME]

Prints a script that completes commands, recipes, worlds and options in bash:

    source <(steersman completion bash)

in ~/.bashrc. What it asks for options is the second form: one line each."""
BASH = """_steersman() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} name= words= known
    if (( COMP_CWORD == 1 )); then
        words="@commands"
    elif (( COMP_CWORD == 2 )) && [[ $word != -* ]]; then
        case $command in
            train | recipes) words="@recipes" ;;
            record) words="@worlds" ;;
            bench) words="cores" ;;
            completion) words="bash" ;;
        esac
    elif [[ $word == -* ]]; then
        case $command in
            train | record | bench) name=${COMP_WORDS[2]} ;;
        esac
        # The first time takes a second or two; then this shell knows them.
        known=_steersman_${command//[^a-zA-Z0-9]/_}_${name//[^a-zA-Z0-9]/_}
        if [[ -z ${!known} ]]; then
            words=$("${COMP_WORDS[0]}" completion options "$command" ${name:+"$name"} 2> /dev/null)
            printf -v "$known" %s "$words"
        fi
        words=${!known}
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _steersman steersman
"""


def completion(arguments: list[str]) -> None:
    """print a script that completes commands in a shell"""
    match arguments:
        case ["bash"]:
            names = {"commands": COMMANDS, "recipes": RECIPES, "worlds": WORLDS}
            script = BASH
            for what, known in names.items():
                script = script.replace(f"@{what}", " ".join(known))
            print(script, end="")
        case ["options", command, *name] if command in COMMANDS and len(name) < 2:
            print("\n".join(options(command, *name)))
        case _ if "-h" in arguments or "--help" in arguments:
            print(HELP)
        case _:
            said = f"no completion for {' '.join(arguments)!r}" if arguments else "completion needs a shell"
            raise UserError(f"{said}: steersman completion bash")


def options(command: str, *name: str) -> list[str]:
    """The options that a command's help lists."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(io.StringIO()), suppress(SystemExit):
        COMMANDS[command]([*name, "--help"])
    invocations = re.findall(r"^[│ ] (-\S*(?:[ ,]\S+)*)", said.getvalue(), re.MULTILINE)
    return [option for said in invocations for option in re.findall(r"(?:^|, )(--[a-z][\w.-]*)", said)]

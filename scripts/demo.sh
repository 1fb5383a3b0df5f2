#!/usr/bin/env bash
# The main job in miniature, each command shown before it runs: a small English LLaMA is pretrained, its vocabulary and its
# weights are extended for Chinese, then it is continued on Chinese. Run by `make demo`, inside the virtual environment
# that make sets up.
set -euo pipefail
cd "$(dirname "$0")/.."
text=.cache/sample_text sample=outputs/sample
processes=$(python -c 'import torch; print(torch.cuda.device_count() or 2)')
[ "$processes" -gt 2 ] && processes=2

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

rm -rf outputs/llama_tiny_en outputs/llama_tiny_en_extended outputs/llama_tiny_zh $sample
run python scripts/fetch_sample_text.py --output $text
run python scripts/clean.py --input $text/zh.jsonl --output $sample/clean --config recipes/clean_zh_domain.json --processes_num 2
run python scripts/train_tokenizer.py --corpus_path $text/en.jsonl --vocab_size 4000 --output $sample/tokenizer.model
for name in en en_heldout zh_heldout; do
    run python scripts/preprocess.py --corpus_path $text/$name.jsonl --spm_model_path $sample/tokenizer.model \
        --dataset_path $sample/base/$name --seq_length 256 --processes_num 2
done
run deepspeed --num_gpus "$processes" pretrain.py --config recipes/llama_tiny_en.json
run python scripts/merge_vocab.py --base outputs/llama_tiny_en/model --corpus $sample/clean/00000_zh.jsonl.zst --size 8000 \
    --model outputs/llama_tiny_en/model --output outputs/llama_tiny_en_extended \
    --check $text/zh_heldout.jsonl $text/en_heldout.jsonl --english $text/en_heldout.jsonl --chinese $text/zh_heldout.jsonl
run python scripts/preprocess.py --corpus_path $sample/clean/00000_zh.jsonl.zst --spm_model_path outputs/llama_tiny_en_extended \
    --dataset_path $sample/extended/zh --seq_length 256 --processes_num 2
for name in zh_heldout en_heldout; do
    run python scripts/preprocess.py --corpus_path $text/$name.jsonl --spm_model_path outputs/llama_tiny_en_extended \
        --dataset_path $sample/extended/$name --seq_length 256 --processes_num 2
done
run deepspeed --num_gpus "$processes" pretrain.py --config recipes/llama_tiny_zh.json
run python scripts/show_scores.py outputs/llama_tiny_zh
run python scripts/generate.py --model outputs/llama_tiny_zh/model --prompt "第一条 为了" "The function returns" \
    --max_new_tokens 40 --temperature 0.7 --top_p 0.9 --repetition_penalty 1.1 --output outputs/llama_tiny_zh/samples.txt

printf '\nwritten by this demo:\n'
printf '  %s\n' $sample/clean/ledger.html outputs/llama_tiny_en_extended/vocab_report.html outputs/llama_tiny_zh/model \
    "$(ls -d outputs/llama_tiny_zh/checkpoints/step_* | tail -n 1)" \
    outputs/llama_tiny_zh/metrics.jsonl "$(ls -d outputs/llama_tiny_zh/wandb/offline-run-* 2>/dev/null | tail -n 1)" \
    outputs/llama_tiny_zh/samples.txt outputs/llama_tiny_en $sample $text
